# The public DaViT-T on ImageNet-1k: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/davit-t_classifier.py',
    '../_base_/datasets/imagenet_val_224.py',
    '../_base_/default_runtime.py',
]
# under --smoke all is small
smoke = dict(
    model=dict(
        backbone=dict(
            arch=dict(_delete_=True, embed_dims=[16, 32, 64, 128], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
        ),
        head=dict(in_channels=128),
    ),
)
