# Florence on COCO (section 3.6): longer side up to 2500 pixels, several sizes, 12 epochs, tested at several (--tta).
# Not stated: the sizes of the shorter side, the batch, the learning rate
_base_ = [
    '../_base_/models/atss_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import change_step, replace_step, replace_steps

load_from = 'work_dirs/atss_coswin-h_fpn_dyhead_128xb1-12e_flod9m/epoch_12.pth'
train_pipeline = replace_step(
    _base_.train_pipeline,
    'Resize',
    dict(
        type='mmcv.RandomChoiceResize',
        resize_type='mmdet.Resize',
        scales=[(2500, side) for side in range(640, 1401, 40)],
        keep_ratio=True,
    ),
)
test_pipeline = change_step(_base_.test_pipeline, 'Resize', scale=(2500, 1200))
tta_pipeline = replace_steps(
    _base_.tta_pipeline,
    'Resize',
    *(dict(type='mmdet.Resize', scale=(2500, side), keep_ratio=True) for side in (800, 1000, 1200, 1400, 1600)),
)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
