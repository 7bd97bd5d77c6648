# The embedded clips' nine motions, from the quickstart's checkpoint, in minutes on two cores:
# bash tools/dist_train.sh configs/video_coswin/video_coswin-micro_2xb5-12e_clips.py 2
_base_ = [
    '../_base_/models/video_coswin-t.py',
    '../_base_/datasets/clips.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch='micro',
        patch_size=(2, 4, 4),  # height and width of the pretraining
        drop_path_rate=0.0,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/quickstart/epoch_36.pth',
            prefix='image_encoder.',
        ),
    ),
    cls_head=dict(num_classes=9, in_channels=128, dropout_ratio=0.0),
)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    # an inflated kernel is three times as small as the image model's: steps of the head's size would wipe it out
    paramwise_cfg=dict(lr_mult={'backbone': 0.125, 'backbone.patch_embed': 0.025}),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=0.5, end=12, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=4)
val_cfg = dict()
test_cfg = dict()
train_dataloader = dict(batch_size=5)
auto_scale_lr = dict(base_batch_size=10, enable=False)
custom_hooks = [dict(type='florence_mm.ClassCountHook')]
