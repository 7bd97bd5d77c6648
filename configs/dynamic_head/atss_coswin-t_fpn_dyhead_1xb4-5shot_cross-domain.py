# Fine-tuning on five pictures a class, chosen by tools/dataset_converters/few_shot_subset.py
_base_ = './atss_coswin-t_fpn_dyhead_1xb4-full_cross-domain.py'

train_dataloader = dict(dataset=dict(ann_file='train/_annotations.5shot.json'))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=100, milestones=[67, 92], gamma=0.1),
]
train_cfg = dict(max_epochs=100, val_interval=10)
