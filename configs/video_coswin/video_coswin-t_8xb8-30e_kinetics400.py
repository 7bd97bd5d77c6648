# Where to start: Kinetics-400 at 224 pixels on one machine of 8 GPUs, Video Swin-T's recipe
_base_ = [
    '../_base_/models/video_coswin-t.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/schedules/video_swin_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-t_8xb512-32e_in21k-yfcc14m/epoch_32.pth',
            prefix='image_encoder.',
        )
    )
)
