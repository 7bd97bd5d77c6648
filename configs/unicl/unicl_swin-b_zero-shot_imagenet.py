# The same with the releases of Swin-B
_base_ = './unicl_swin-t_zero-shot_imagenet.py'

model = dict(image_encoder=dict(arch='base'))
