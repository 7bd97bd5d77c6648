# GIT with CoSwin-H, Florence's encoder, as in the paper
_base_ = './git_clip-vit-b-16.py'

model = dict(
    data_preprocessor=dict(_delete_=True, type='florence_mm.ImageTextDataPreprocessor'),
    image_encoder=dict(_delete_=True, type='florence_mm.CoSwin', arch='huge', img_size=384, window_size=12),
)
smoke = dict(
    model=dict(
        image_encoder=dict(
            _delete_=True, arch=dict(_delete_=True, embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
        ),
    ),
)
