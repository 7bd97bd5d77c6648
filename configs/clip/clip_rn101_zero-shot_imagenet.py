# Zero-shot ImageNet with CLIP's ResNet-101: python tools/test.py CONFIG CHECKPOINT
_base_ = './clip_rn50_zero-shot_imagenet.py'

model = dict(image_encoder=dict(arch='resnet101'), embed_dims=512)
