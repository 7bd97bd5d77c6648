# The quickstart's towers go on with digits cut out of scenes of large digits, the first step to METER (docs/meter.md):
# bash tools/dist_train.sh configs/unicl/unicl_coswin-micro_2xb32-3e_large-digit-crops.py 2
_base_ = ['./unicl_coswin-micro_1xb64-10e_scene-crops.py']

train_dataloader = dict(batch_size=32, dataset=dict(ann_file='data/large_digit_crops/train.jsonl'))
val_dataloader = dict(dataset=dict(ann_file='data/large_digit_crops/test.jsonl'))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=3, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3))
