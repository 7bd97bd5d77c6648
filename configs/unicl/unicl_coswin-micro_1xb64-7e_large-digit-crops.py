# The quickstart's towers go on with digits cut out of the scenes of large digits, wherever they lie in the crop: the
# first step to METER (docs/meter.md, "The embedded task"):
# python tools/train.py configs/unicl/unicl_coswin-micro_1xb64-7e_large-digit-crops.py
_base_ = ['./unicl_coswin-micro_1xb64-36e_digits.py']

load_from = 'work_dirs/quickstart/epoch_36.pth'
# whole scenes have their digits anywhere: shifted by up to a quarter of the crop, not by a twelfth
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.RandomAffineImage', max_rotate=0.0, max_translate=0.25, scale=(0.77, 1.3)),
    dict(type='florence_mm.RandomPrompt', templates='simple', max_words=1),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(dataset=dict(ann_file='data/large_digit_crops/train.jsonl', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(ann_file='data/large_digit_crops/test.jsonl'))
test_dataloader = val_dataloader
val_evaluator = [dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))]
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.4, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.4, end=7, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=7, val_interval=7)
default_hooks = dict(checkpoint=dict(interval=7))
