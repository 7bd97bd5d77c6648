# Which digit is at a place of a scene: output queries are places (docs/perceiver.md, "Which digit is there?")
_base_ = [
    '../_base_/models/large-digits_coswin-micro.py',
    '../_base_/datasets/large_digit_places.py',
    '../_base_/schedules/perceiver_micro.py',
    '../_base_/default_runtime.py',
]
width = 64
model = dict(
    _delete_=True,
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        num_classes=11,
    ),
    backbone=dict(
        type='florence_mm.Perceiver',
        arch=dict(
            num_latents=16,
            embed_dims=width,
            depth=2,
            num_heads=4,
            qk_channels=width,
            mlp_ratio=2.0,
            init_std=width**-0.5,
        ),
        inputs='map',
        # maps of 8 x 8 and 4 x 4, of a tower that knows digits and not where they are
        stem=dict(
            type='florence_mm.CoSwin',
            arch='micro',
            img_size=32,  # of the pretraining: the size of the windows' bias tables
            patch_size=4,
            out_indices=(1, 2),
            drop_path_rate=0.0,
            init_cfg=dict(
                type='florence_mm.Pretrained',
                checkpoint={{_base_.towers}},
                prefix='image_encoder.',
                allow_missing=['norm1'],
            ),
        ),
        img_size=64,
        num_bands=8,
    ),
    head=dict(
        type='florence_mm.PlaceQueryHead',
        num_classes=11,
        in_channels=width,
        resolution=(32, 32),
        num_bands=8,
        num_heads=4,
        mlp_ratio=2.0,
        num_sampled=8,
        init_std=width**-0.5,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(orthogonal=('stem', 'encoder', 'cross_attend')))
max_epochs = 16
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=60),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4))
