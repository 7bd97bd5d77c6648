# The fusion learns to read digits and colours in crops, a quarter of a scene's pixels, before it reads scenes:
# python tools/train.py configs/meter/meter_coswin-micro_1xb64-4e_large-digit-crops.py
_base_ = [
    '../_base_/models/meter_coswin-micro.py',
    '../_base_/datasets/large_digit_crop_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

# captions are "a red five": half of the words are asked for, not BERT's 15 %, and whole, or "yel" would give "low" away
model = dict(heads=dict(mlm=dict(type='florence_mm.FusionMLMHead', probability=0.5, whole_word=True)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=4, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=4)
default_hooks = dict(checkpoint=dict(interval=4))
# poolers are for matching and questions
find_unused_parameters = True
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
