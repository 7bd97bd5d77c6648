# UniCL's recipe (config.py of the public code): AdamW, 32 epochs, 5 of warm-up, cosine; learning rate for 4096 pairs
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.25e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=4e-5, by_epoch=True, begin=5, end=32, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=32, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=4096, enable=False)
