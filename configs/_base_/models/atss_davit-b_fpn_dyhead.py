# Dynamic Head on Florence-2-base's image tower, whose maps are normalised
_base_ = './atss_coswin-t_fpn_dyhead.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='florence_mm.FlorenceDaViT',
        arch='base',
        out_indices=(1, 2, 3),
        out_norm='map',
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
# under --smoke the backbone is small
smoke = dict(
    model=dict(
        backbone=dict(
            arch=dict(_delete_=True, embed_dims=[16, 32, 64, 128], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
        ),
        neck=dict(in_channels=[32, 64, 128]),
        bbox_head=dict(num_blocks=1),
    ),
)
