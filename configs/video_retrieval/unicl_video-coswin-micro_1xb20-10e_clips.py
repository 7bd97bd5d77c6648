# The quickstart's towers learn captions of digits and motions: "a seven moving to the left"
_base_ = [
    '../_base_/models/unicl_video-coswin-micro.py',
    '../_base_/datasets/clips_text.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/quickstart/epoch_36.pth'
max_epochs = 10
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
default_hooks = dict(logger=dict(interval=30), checkpoint=dict(interval=5))
auto_scale_lr = dict(base_batch_size=20)
