# The public vision-perceiver-fourier on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/perceiver_classifier.py',
    '../_base_/datasets/imagenet_val_224.py',
    '../_base_/default_runtime.py',
]
