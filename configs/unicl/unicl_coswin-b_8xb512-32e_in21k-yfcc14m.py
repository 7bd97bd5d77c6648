_base_ = './unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'

# 73 GiB without recomputed blocks are too near to 80; the text tower's cost a twentieth, and 66 GiB are left
model = dict(image_encoder=dict(arch='base', drop_path_rate=0.5), text_encoder=dict(with_cp=True))
# under --smoke a small model; the tiny one is tried in its own size
smoke = dict(
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])),
        text_encoder=dict(arch=dict(_delete_=True, embed_dims=128, num_layers=2, num_heads=2)),
    )
)
