# Florence's second stage: without the augmented texts, neither templates nor rows that carry one already
_base_ = './unicl_coswin-micro_1xb64-200_digit-pairs.py'
from florence_mm.config.pick import remove_step

train_pipeline = remove_step(_base_.train_pipeline, 'RandomPrompt')
train_dataloader = dict(dataset=dict(drop_augmented=True, pipeline=train_pipeline))
load_from = 'work_dirs/pretraining/stage1_seed0/iter_200.pth'
max_iters = 100
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=1e-4, by_epoch=False, begin=10, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
