# The embedded scenes of digits, from the quickstart's towers:
# python tools/train.py configs/dynamic_detr/dynamic-detr_coswin-micro_1xb8-8e_scenes.py
_base_ = [
    '../_base_/models/dynamic-detr_coswin-t.py',
    '../_base_/datasets/scenes_detection.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),
    backbone=dict(
        arch='micro',
        img_size=32,  # of the pretraining: the size of the windows' bias tables
        patch_size=4,
        out_indices=(1, 2),
        drop_path_rate=0.0,
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/quickstart/epoch_22.pth',
            prefix='image_encoder.',
        ),
    ),
    neck=dict(in_channels=[64, 128], out_channels=64, num_outs=2, add_extra_convs=False, relu_before_extra_convs=False),
    encoder=dict(in_channels=64, num_layers=2),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        num_queries=49,
        num_stages=4,
        num_heads=4,
        feedforward_channels=256,
        strides=(8, 16),
        roi_size=5,  # a digit has about three by four positions of the finer map
        sampling_ratio=1,
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(
        type='florence_mm.MuonAdamW', lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True, ns_steps=4
    ),
    # Muon for matrices, but those of the predictions
    paramwise_cfg=dict(orthogonal=('backbone', 'query_key', 'value', 'output', 'filter', 'mlp')),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=8, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=4)
val_cfg = dict()
test_cfg = dict()
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8, enable=False)
