_base_ = ['./atss_coswin-t_fpn_dyhead.py']

# CoSwin-H at the size of its last pretraining stage; blocks are computed again in the backward pass
model = dict(
    backbone=dict(arch='huge', img_size=384, window_size=12, with_cp=True),
    neck=dict(in_channels=[512, 1024, 2048]),
    bbox_head=dict(with_cp=True),
)
# under --smoke the backbone is small; bf16 is slow on CPUs
smoke = dict(
    optim_wrapper=dict(type='mmengine.OptimWrapper'),
    model=dict(
        backbone=dict(arch=dict(_delete_=True, embed_dims=64, depths=[1, 1, 1, 1], num_heads=[2, 4, 8, 16])),
        neck=dict(in_channels=[128, 256, 512]),
        bbox_head=dict(num_blocks=1),
    ),
)
