# All tasks about the embedded scenes from one checkpoint (docs/florence2.md, "The embedded task"):
# bash tools/dist_train.sh configs/florence2/florence2_coswin-micro_2xb16-5k_large-digit-tasks.py 2
_base_ = [
    '../_base_/models/florence2_coswin-micro.py',
    '../_base_/datasets/large_digit_tasks.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

val_evaluator = [
    dict(type='florence_mm.WrittenBoxes'),
    dict(type='florence_mm.TextAccuracy', tasks=['region_category']),
    dict(type='florence_mm.MovedRegions', tasks=['region_category']),
    dict(type='florence_mm.PhraseRecall', topk=(1,)),
    dict(type='florence_mm.PolygonIoU', tasks=['referring_segmentation']),
    dict(type='florence_mm.CaptionScores', tasks=['caption']),
]
test_evaluator = val_evaluator
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'encoder', 'decoder'))
)
max_iters = 5000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=60),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=False, begin=60, end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
test_cfg = dict(type='florence_mm.ControlledTestLoop', controls=('exchanged',))
