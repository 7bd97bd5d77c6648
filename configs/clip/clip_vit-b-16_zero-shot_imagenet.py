# Zero-shot ImageNet with CLIP's ViT-B/16: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/clip_vit-b-32.py',
    '../_base_/datasets/imagenet_zero_shot.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(arch='base-16'),
)
