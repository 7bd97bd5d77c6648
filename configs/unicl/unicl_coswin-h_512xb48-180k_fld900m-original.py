# Florence's second stage (section 2.2): 180K iterations at 224 pixels without the augmented texts: neither templates
# nor rows that carry one already
_base_ = './unicl_coswin-h_512xb48-1m_fld900m.py'
from florence_mm.config.pick import remove_step

load_from = 'work_dirs/unicl_coswin-h_512xb48-1m_fld900m/iter_1000000.pth'
train_pipeline = remove_step(_base_.train_pipeline, 'RandomPrompt')
train_dataloader = dict(dataset=dict(drop_augmented=True, pipeline=train_pipeline))
max_iters = 180_000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=2_000),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=2_000, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=max_iters)
