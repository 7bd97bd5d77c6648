# UniCL's public model with Swin-T: its settings are the defaults of the towers
_base_ = './unicl_coswin-t.py'

model = dict(image_encoder=dict(conv_embed=False))
smoke = dict(
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])),
        text_encoder=dict(arch=dict(_delete_=True, embed_dims=64, num_layers=2, num_heads=2)),
    ),
)
