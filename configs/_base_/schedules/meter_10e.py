# METER's fine-tuning: 10 epochs of 512 pairs, the first one warm-up
_base_ = './meter_43e.py'

max_epochs = 10
optim_wrapper = dict(optimizer=dict(lr=5e-6))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512)
