# Zero-shot ImageNet with open_clip's ViT-H/14: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/clip_vit-b-32.py',
    '../_base_/datasets/imagenet_zero_shot.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(arch='huge-14', act='gelu'),
    text_encoder=dict(arch=dict(_delete_=True, embed_dims=1024, num_layers=24, num_heads=16), act='gelu'),
    embed_dims=1024,
)
