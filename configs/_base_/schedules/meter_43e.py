# Florence, section 2.5: 43 epochs of fusion pretraining. The rest is METER's (config.py of the public code): AdamW,
# 1e-5 for 4096 pairs, five times that for heads and fusion, a tenth of the steps as warm-up, then linearly to zero
max_epochs = 43
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-5, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01, fused=True),
    paramwise_cfg=dict(lr_mult=dict(cross_modal=5, heads=5)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=4.3, convert_to_iter_based=True),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=True, begin=4.3, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=4096, enable=False)
