# Dynamic DETR on a pretrained CoSwin-T, 12 epochs of COCO at one size
_base_ = [
    '../_base_/models/dynamic-detr_coswin-t.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/dynamic_detr_1x.py',
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
train_dataloader = dict(batch_size=2)
