# As unicl_coswin-micro_1xb64-10e_scene-crops on two processes, with which METER's embedded task begins (docs/meter.md):
# bash tools/dist_train.sh configs/unicl/unicl_coswin-micro_2xb64-10e_scene-crops.py 2
_base_ = ['./unicl_coswin-micro_1xb64-10e_scene-crops.py']

load_from = 'work_dirs/quickstart/epoch_22.pth'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=10, convert_to_iter_based=True),
]
train_cfg = dict(val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=128)
