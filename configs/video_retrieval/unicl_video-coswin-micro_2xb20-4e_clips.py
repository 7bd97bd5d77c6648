# Captions of digits and motions, "a seven moving to the left": the video tower is the recognizer of motions, the text
# tower the quickstart's:
# bash tools/dist_train.sh configs/video_retrieval/unicl_video-coswin-micro_2xb20-4e_clips.py 2
_base_ = [
    '../_base_/models/unicl_video-coswin-micro.py',
    '../_base_/datasets/clips_text.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(
        merge_temporal_kernel=3,
        window_size=[(2, 4, 4), (4, 4, 4), (8, 4, 4)],
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/video_coswin-micro_2xb5-3e_clips/epoch_3.pth',
            prefix='backbone.',
        ),
    ),
    text_encoder=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-micro_1xb64-36e_digits/epoch_36.pth',
            prefix='text_encoder.',
        ),
    ),
)
max_epochs = 4
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05), paramwise_cfg=dict(lr_mult={'image_encoder': 0.25}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
default_hooks = dict(logger=dict(interval=30), checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=40)
