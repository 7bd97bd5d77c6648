# SimVLM: 1M iterations of 4,096 pairs, 512 documents. Betas, rate, decay and warm-up are from memory of the paper
# and unchecked; clipping is ours
max_iters = 1_000_000
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20_000),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=False, begin=20_000, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=4608, enable=False)
