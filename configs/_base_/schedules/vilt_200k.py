# ViLT's pretraining: AdamW 1e-4 with decay 0.01, a tenth of 200,000 steps as warm-up, then linearly to 0
max_iters = 200_000
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20_000),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=False, begin=20_000, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=4096, enable=False)
