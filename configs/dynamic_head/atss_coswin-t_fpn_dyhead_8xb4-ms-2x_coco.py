# The recipe of the public Dynamic Head on Swin-T (49.8 AP there): 24 epochs, shorter side from 640 to 800 pixels
_base_ = './atss_coswin-t_fpn_dyhead_8xb4-1x_coco.py'
from florence_mm.config.pick import replace_step

train_pipeline = replace_step(
    _base_.train_pipeline,
    'Resize',
    dict(
        type='mmcv.RandomChoiceResize',
        resize_type='mmdet.Resize',
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True,
    ),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1_000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
train_cfg = dict(max_epochs=24)
