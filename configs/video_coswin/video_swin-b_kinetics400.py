# The same with Video Swin-B
_base_ = './video_swin-t_kinetics400.py'

model = dict(backbone=dict(arch='base'), cls_head=dict(in_channels=1024))
