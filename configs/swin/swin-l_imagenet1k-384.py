# The public Swin-L on ImageNet-1k at 384 pixels, to which Swin's code resizes both sides
_base_ = './swin-l_imagenet1k.py'

model = dict(backbone=dict(img_size=384, window_size=12))
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='florence_mm.LoadImage'),
            dict(type='mmpretrain.Resize', scale=(384, 384), backend='pillow', interpolation='bicubic'),
            dict(type='mmpretrain.PackInputs'),
        ],
    ),
)
