# Florence's CoSwin-H with Dynamic DETR in the place of Dynamic Head; Florence gives no figures and no recipe for it
_base_ = [
    '../_base_/models/dynamic-detr_coswin-t.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/dynamic_detr_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch='huge',
        img_size=384,
        window_size=12,
        with_cp=True,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
            prefix='image_encoder.',
        ),
    ),
    neck=dict(in_channels=[512, 1024, 2048]),
    encoder=dict(with_cp=True),
    bbox_head=dict(with_cp=True),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
# under --smoke the backbone is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        backbone=dict(arch=dict(_delete_=True, embed_dims=64, depths=[1, 1, 1, 1], num_heads=[2, 4, 8, 16])),
        neck=dict(in_channels=[128, 256, 512]),
        encoder=dict(num_layers=1),
    ),
)
