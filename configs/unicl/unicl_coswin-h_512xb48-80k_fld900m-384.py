# Florence's last stage (section 2.2): 80K iterations at 384 pixels. The batch there is not stated; window 12 makes
# the map of each stage divide, as the public code demands
_base_ = './unicl_coswin-h_512xb48-180k_fld900m-original.py'

load_from = 'work_dirs/unicl_coswin-h_512xb48-180k_fld900m-original/iter_180000.pth'
model = dict(image_encoder=dict(img_size=384, window_size=12))
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(scale=384)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=438)
test_pipeline[2].update(crop_size=384)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
max_iters = 80_000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1_000),
    dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=False, begin=1_000, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=2e-5))
train_cfg = dict(max_iters=max_iters)
