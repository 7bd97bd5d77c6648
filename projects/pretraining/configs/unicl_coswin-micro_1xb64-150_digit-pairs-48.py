# Florence's last stage: a higher resolution, which has maps of 12, 6 and 3 tokens a side, and windows that divide them
_base_ = './unicl_coswin-micro_1xb64-100_digit-pairs-original.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 48)
load_from = 'work_dirs/pretraining/stage2_seed0/iter_100.pth'
model = dict(image_encoder=dict(img_size=48, window_size=6))
max_iters = 150
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=15),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=15, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
