# Florence, section 2.2: 1M iterations of 24,576 pairs with "Adam" and "decoupled weight decay". Learning rate, betas,
# decay, warm-up and clipping are not stated: decay and clipping are those of MedImageInsight's config, the rest ours.
max_iters = 1_000_000
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=10_000),
    dict(type='CosineAnnealingLR', eta_min=5e-6, by_epoch=False, begin=10_000, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=20_000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=24_576, enable=False)
