# The same with open_clip's ViT-L/14, whose activation is GELU: python tools/test.py CONFIG CHECKPOINT
_base_ = './clip_vit-l-14_zero-shot_imagenet.py'

model = dict(
    image_encoder=dict(act='gelu'),
    text_encoder=dict(act='gelu'),
)
