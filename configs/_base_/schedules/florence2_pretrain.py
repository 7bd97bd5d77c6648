# Florence-2's pretraining (arXiv 2311.06242, section 5.1): AdamW, 5,000 steps of warm-up, then a cosine. 3 G samples of
# 384 pixels in batches of 2,048. Betas, weight decay and clipping are ours
max_iters = 1_465_000
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=5_000),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=5_000, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=2048, enable=False)
