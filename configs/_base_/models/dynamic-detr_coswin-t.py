# Dynamic DETR on CoSwin-T
_base_ = ['./dynamic-detr_r50.py']

model = dict(
    backbone=dict(_delete_=True, type='florence_mm.CoSwin', arch='tiny', out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=[192, 384, 768]),
)
