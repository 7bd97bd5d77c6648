# UniCL with Florence-2-base's image tower, on the data and by the recipe of CoSwin-T
_base_ = './unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'

model = dict(
    image_encoder=dict(
        _delete_=True,
        type='florence_mm.FlorenceDaViT',
        arch='base',
        out_norm='pooled',
        drop_path_rate=0.2,
        with_cp=True,
    ),
    text_encoder=dict(with_cp=True),
)
# under --smoke all is small
smoke = dict(
    model=dict(
        image_encoder=dict(
            arch=dict(_delete_=True, embed_dims=[16, 32, 64, 128], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
        ),
        text_encoder=dict(arch=dict(_delete_=True, embed_dims=64, num_layers=2, num_heads=1)),
    )
)
