# How well do the quickstart's frozen features tell digits apart? Our backbone and data, mmpretrain's classifier, head
# and metric, and two parts of this project's own
_base_ = ['florence_mm::_base_/datasets/digits.py', 'florence_mm::_base_/default_runtime.py']
custom_imports = dict(imports=['projects.linear_probe.probe'])

model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(
        type='florence_mm.CoSwin',
        arch='micro',
        img_size=32,
        patch_size=4,
        drop_path_rate=0.0,
        frozen_stages=2,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/quickstart/epoch_36.pth',
            prefix='image_encoder.',
        ),
    ),
    neck=dict(type='florence_mm.NormalizedPooling', in_channels=128),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
    ),
)
classes = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.LabelOfText', classes=classes),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type='mmpretrain.Accuracy')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, end=20, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=20)
val_cfg = dict()
test_cfg = dict()
