# The embedded digits by 16 latents that read their 1,024 pixels (docs/perceiver.md, "Digits")
_base_ = [
    '../_base_/models/perceiver_classifier.py',
    '../_base_/datasets/digit_classes.py',
    '../_base_/schedules/perceiver_micro.py',
    '../_base_/default_runtime.py',
]
width = 64
model = dict(
    data_preprocessor=dict(num_classes=10),
    backbone=dict(
        arch=dict(
            _delete_=True,
            num_latents=16,
            embed_dims=width,
            depth=2,
            num_blocks=2,
            num_heads=4,
            qk_channels=width,
            mlp_ratio=2.0,
            init_std=width**-0.5,
        ),
        img_size=32,
        num_bands=8,
    ),
    neck=dict(in_channels=width, num_heads=4, mlp_ratio=2.0, init_std=width**-0.5),
    head=dict(num_classes=10, in_channels=width, topk=(1,)),
)
smoke = dict(_delete_=True)  # it is small enough
max_epochs = 40
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=2, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
