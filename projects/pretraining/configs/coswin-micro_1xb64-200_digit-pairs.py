# Stage 1's image tower by cross-entropy: a linear classifier on the class-labelled pictures
_base_ = './unicl_coswin-micro_1xb64-200_digit-pairs.py'

model = dict(
    _delete_=True,
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        num_classes=10,
    ),
    backbone=dict(
        type='florence_mm.CoSwin',
        arch='micro',
        img_size=32,
        patch_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
        init_cfg=dict(
            type='florence_mm.Pretrained', checkpoint='work_dirs/quickstart/epoch_22.pth', prefix='image_encoder.'
        ),
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
    ),
)
load_from = None
train_dataloader = dict(dataset=dict(ann_file='data/digit_pairs/classes.jsonl'))
optim_wrapper = dict(paramwise_cfg=dict(orthogonal=('backbone',)))
val_dataloader = None
val_evaluator = None
val_cfg = None
test_evaluator = [dict(type='mmpretrain.Accuracy', topk=(1,))]
default_hooks = dict(class_names=None)
