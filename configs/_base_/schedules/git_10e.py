# GIT's fine-tuning: 10 epochs of batches of 512, the first one warm-up; half the rates of the pretraining
_base_ = './git_2e.py'

max_epochs = 10
optim_wrapper = dict(optimizer=dict(lr=2.5e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512)
