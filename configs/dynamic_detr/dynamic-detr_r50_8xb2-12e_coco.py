# Dynamic DETR on ResNet-50, 12 epochs of COCO at one size
_base_ = [
    '../_base_/models/dynamic-detr_r50.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/dynamic_detr_1x.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=2)
