# Video Swin-T's recipe: AdamW, 1e-3 for 64 clips, a tenth of it for the inherited backbone, 30 epochs, 2.5 of warm-up,
# cosine
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.02, fused=True),
    paramwise_cfg=dict(lr_mult={'backbone': 0.1}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=2.5, end=30, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=3)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64, enable=False)
