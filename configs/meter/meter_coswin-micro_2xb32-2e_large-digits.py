# Pretraining of the fusion on captions of the embedded scenes, from towers that learned them (docs/meter.md):
# bash tools/dist_train.sh configs/meter/meter_coswin-micro_2xb32-2e_large-digits.py 2
_base_ = [
    '../_base_/models/meter_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead'),
        # captions have few words that only the picture tells: more than BERT's 15 % are asked for
        mlm=dict(type='florence_mm.FusionMLMHead', probability=0.5),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.1, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.1, end=2, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=2)
# what the model is for comes with fine-tuning; matching and masked words are logged
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
