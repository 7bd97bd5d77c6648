# Florence-2-base's pretraining at 384 pixels: 3 G samples of all tasks in batches of 2,048
_base_ = [
    '../_base_/models/florence2-base.py',
    '../_base_/datasets/florence2_pretrain.py',
    '../_base_/schedules/florence2_pretrain.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
