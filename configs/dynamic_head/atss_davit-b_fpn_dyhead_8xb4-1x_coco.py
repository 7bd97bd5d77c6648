# Dynamic Head on DaViT-B, 12 epochs of COCO at one size. init_cfg of the backbone takes the tower of Florence-2, too
_base_ = [
    '../_base_/models/atss_davit-b_fpn_dyhead.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        with_cp=True,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_davit-b_8xb512-32e_in21k-yfcc14m/epoch_32.pth',
            prefix='image_encoder.',
        ),
    )
)
