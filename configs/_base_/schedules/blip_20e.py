# BLIP's pretraining: 20 epochs, AdamW with decay 0.05, 3,000 steps of warm-up, the rate times 0.9 after each epoch, as
# in the public config (0.85 in the paper)
max_epochs = 20
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper', optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05, fused=True)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 300, by_epoch=False, begin=0, end=3000),
    dict(type='ExponentialLR', gamma=0.9, by_epoch=True, begin=0, end=max_epochs),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=2880, enable=False)
