# The public Swin-S on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = './swin-t_imagenet1k.py'

model = dict(backbone=dict(arch='small'))
