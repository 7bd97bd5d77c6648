# Zero-shot ImageNet with CLIP's ViT-L/14: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/clip_vit-b-32.py',
    '../_base_/datasets/imagenet_zero_shot.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(arch='large-14'),
    text_encoder=dict(arch=dict(_delete_=True, embed_dims=768, num_layers=12, num_heads=12)),
    embed_dims=768,
)
