# The pretrained two towers with the image tower made for clips of 384 pixels (Florence, section 3.8). Windows have the
# height and width of the image model's at that size, so a still clip has the picture's feature; their steps in time are
# ours, the paper gives none. Without recomputed blocks eight clips of 384 pixels do not fit 80 GiB
_base_ = './unicl_coswin-h.py'

model = dict(
    image_encoder=dict(
        type='florence_mm.VideoCoSwin',
        window_size=[(2, 12, 12), (4, 12, 12), (8, 12, 12), (8, 12, 12)],
        with_cp=True,
    ),
)
# under --smoke narrower than the image model, as clips have more tokens
smoke = dict(
    model=dict(
        image_encoder=dict(arch=dict(embed_dims=32, num_heads=[1, 2, 4, 8])),
        text_encoder=dict(arch=dict(embed_dims=128, num_heads=2)),
    ),
)
