# The public Swin-L on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = './swin-t_imagenet1k.py'

model = dict(backbone=dict(arch='large'), head=dict(in_channels=1536))
