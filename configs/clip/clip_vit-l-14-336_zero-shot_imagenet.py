# Zero-shot ImageNet with CLIP's ViT-L/14 at 336 pixels: python tools/test.py CONFIG CHECKPOINT
_base_ = './clip_vit-l-14_zero-shot_imagenet.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 336)

model = dict(
    image_encoder=dict(arch='large-14-336'),
)
