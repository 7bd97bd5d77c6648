# The digits' towers go on with digits cut out of the training scenes, to name what a detector proposes there:
# python tools/dataset_converters/crop_boxes.py data/scenes/annotations/SPLIT.json data/scenes/SPLIT \
#     --out data/scene_crops/SPLIT --size 32    with SPLIT train, then test
_base_ = ['./unicl_coswin-micro_1xb64-36e_digits.py']

load_from = 'work_dirs/unicl_coswin-micro_1xb64-36e_digits/epoch_36.pth'
train_dataloader = dict(dataset=dict(ann_file='data/scene_crops/train.jsonl'))
val_dataloader = dict(dataset=dict(ann_file='data/scene_crops/test.jsonl'))
test_dataloader = val_dataloader
val_evaluator = [dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))]
test_evaluator = val_evaluator
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=10, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5))
