# Whole scenes: the words of what is in them from left to right, from the fusion that reads crops:
# python tools/train.py configs/meter/meter_coswin-micro_1xb32-9e_large-digits.py
_base_ = [
    '../_base_/models/meter_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(init_cfg=None),
    text_encoder=dict(tower=dict(init_cfg=None)),
    heads=dict(mlm=dict(type='florence_mm.FusionMLMHead', probability=0.5, whole_word=True)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/meter_coswin-micro_1xb64-4e_large-digit-crops/epoch_4.pth',
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.3, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.3, end=9, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=9)
# one wording: the model has pictures to learn in this time, not language
train_dataloader = dict(dataset=dict(ann_file='data/large_digit_questions/train_lists.jsonl'))
# poolers are for matching and questions
find_unused_parameters = True
default_hooks = dict(checkpoint=dict(interval=9))
# what the model is for comes with fine-tuning; masked words are logged
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
