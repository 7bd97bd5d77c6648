# BLIP-2's first stage: 250,000 steps, AdamW with betas 0.9 and 0.98 and decay 0.05, 1e-4 with 5,000 steps of warm-up and
# a cosine to 1e-5 as in the public config (the paper's floor is 5e-5 in the second stage)
max_iters = 250_000
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=5_000),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=5_000, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters)
