# The embedded clips' nine motions, from the digits' towers, in minutes on two cores:
# bash tools/dist_train.sh configs/video_coswin/video_coswin-micro_2xb5-3e_clips.py 2
_base_ = [
    '../_base_/models/video_coswin-t.py',
    '../_base_/datasets/clips.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch='micro',
        patch_size=(2, 4, 4),  # height and width of the pretraining
        merge_temporal_kernel=3,  # what is new between two steps, at each scale
        drop_path_rate=0.0,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-micro_1xb64-36e_digits/epoch_36.pth',
            prefix='image_encoder.',
        ),
    ),
    # with mmaction2's 0.01 the backbone hears little but the classifier's own noise, in trials for up to 1,150 steps
    cls_head=dict(num_classes=9, in_channels=128, dropout_ratio=0.0, init_std=0.1),
)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    # An inflated model sees no difference between a clip and its reverse. What can tell them apart learns fast: the
    # biases of attention, which have no other scale than 1, and the kernels over time of the merges
    paramwise_cfg=dict(lr_mult={'backbone': 0.5, 'relative_position_bias_table': 10.0, 'downsample': 4.0}),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=400),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
val_cfg = dict()
test_cfg = dict()
train_dataloader = dict(batch_size=5)
auto_scale_lr = dict(base_batch_size=10, enable=False)
