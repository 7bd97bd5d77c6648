_base_ = ['./atss_coswin-t_fpn_dyhead.py']

# CoSwin-H at the size of its last pretraining stage. One picture of 2500 x 1400 pixels keeps all activations: 45 GiB, a
# square one 66 (tools/analysis_tools/get_memory.py)
model = dict(
    backbone=dict(arch='huge', img_size=384, window_size=12),
    neck=dict(in_channels=[512, 1024, 2048]),
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
