# The same with Video Swin-S
_base_ = './video_swin-t_kinetics400.py'

model = dict(backbone=dict(arch='small'))
