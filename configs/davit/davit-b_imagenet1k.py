# The public DaViT-B on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = './davit-t_imagenet1k.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=1024))
