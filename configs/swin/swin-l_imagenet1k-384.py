# The public Swin-L on ImageNet-1k at 384 pixels: python tools/test.py CONFIG CHECKPOINT
_base_ = './swin-b_imagenet1k-384.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1536))
