# Florence on Visual Genome (section 3.6): longer side up to 3000 pixels, several sizes, 24 epochs. Not stated: the
# number of classes (1,600 are those of bottom-up attention, arXiv 1707.07998), the shorter side, batch, learning rate
_base_ = [
    '../_base_/models/atss_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/visual_genome_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import change_step, replace_step, replace_steps

load_from = 'work_dirs/atss_coswin-h_fpn_dyhead_128xb1-12e_flod9m/epoch_12.pth'
model = dict(bbox_head=dict(num_classes=1600))
train_pipeline = replace_step(
    _base_.train_pipeline,
    'Resize',
    dict(
        type='mmcv.RandomChoiceResize',
        resize_type='mmdet.Resize',
        scales=[(3000, side) for side in range(640, 1601, 40)],
        keep_ratio=True,
    ),
)
test_pipeline = change_step(_base_.test_pipeline, 'Resize', scale=(3000, 1200))
tta_pipeline = replace_steps(
    _base_.tta_pipeline,
    'Resize',
    *(dict(type='mmdet.Resize', scale=(3000, side), keep_ratio=True) for side in (800, 1000, 1200, 1400, 1600)),
)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1_000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
train_cfg = dict(max_epochs=24)
