# Flamingo's training: AdamW, 1e-4 behind 5,000 steps of warm-up, weight decay 0.1, gradients clipped at 1
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.1, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=5000)]
train_cfg = dict(by_epoch=False, max_iters=500_000, val_interval=50_000)
auto_scale_lr = dict(base_batch_size=1024, enable=False)
val_cfg = dict()
test_cfg = dict(type='florence_mm.ControlledTestLoop')
