# The public DaViT-S on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = './davit-t_imagenet1k.py'

model = dict(backbone=dict(arch='small'))
