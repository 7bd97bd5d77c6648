# Florence-2-large's pretraining at 384 pixels: 3 G samples of all tasks in batches of 3,072, a tenth of the base rate
_base_ = [
    '../_base_/models/florence2-large.py',
    '../_base_/datasets/florence2_pretrain.py',
    '../_base_/schedules/florence2_pretrain.py',
    '../_base_/default_runtime.py',
]

max_iters = 977_000
optim_wrapper = dict(optimizer=dict(lr=1e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=5_000),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=5_000, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
auto_scale_lr = dict(base_batch_size=3072)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
