# Florence on Kinetics-400 (section 3.9): 384 pixels, 30 epochs, label smoothing, RandAugment, learning rate 2e-4, drop
# path 0.5, tested on 4 clips x 3 crops. Not stated: frames, windows, batch
_base_ = [
    '../_base_/models/video_coswin-h.py',
    '../_base_/datasets/kinetics400_384.py',
    '../_base_/schedules/florence_video_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
            prefix='image_encoder.',
        )
    )
)
# under --smoke the model is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        backbone=dict(arch=dict(_delete_=True, embed_dims=64, depths=[1, 1, 1, 1], num_heads=[2, 4, 8, 16])),
        cls_head=dict(in_channels=512),
    ),
    val_dataloader=dict(batch_size=1),
)
