# ViLT's fine-tuning: 10 epochs of 256 at 1e-4, the first one warm-up
max_epochs = 10
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256, enable=False)
