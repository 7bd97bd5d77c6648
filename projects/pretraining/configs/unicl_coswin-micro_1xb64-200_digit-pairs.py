# Florence's first stage (section 2.2) on embedded data: all texts, short ones in templates. The quickstart's towers,
# which know single digits of one size, are where it begins: from nothing, it would take many times as long
_base_ = './unicl_coswin-micro_1xb64-400_digit-pairs.py'

load_from = 'work_dirs/quickstart/epoch_22.pth'
max_iters = 200
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=2e-4, by_epoch=False, begin=20, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
