# METER with CLIP's ViT-B/16 without its last block, and RoBERTa-base: the public METER-CLIP16-RoBERTa
_base_ = './meter_coswin-t.py'

model = dict(
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    image_encoder=dict(
        _delete_=True,
        type='florence_mm.CLIPVisionTower',
        arch=dict(embed_dims=768, num_layers=11, num_heads=12, patch_size=16),
        img_size=288,
        out_type='raw',
    ),
    fusion=dict(image_pool='first'),
)
smoke = dict(
    model=dict(
        image_encoder=dict(arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, patch_size=32)),
    ),
)
