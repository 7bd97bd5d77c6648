# The quickstart: a two-tower model on 1,347 real handwritten digits, about a minute on two cores
_base_ = [
    '../_base_/models/unicl_coswin-t.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(arch='micro', img_size=32, out_indices=(2,), drop_path_rate=0.0),
    text_encoder=dict(arch='micro'),
    embed_dims=64,
)
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=20, val_interval=5)
auto_scale_lr = dict(base_batch_size=128)
