# Pretraining of UNITER on captions and regions of the embedded scenes (docs/uniter.md):
# bash tools/dist_train.sh configs/uniter/uniter_micro_2xb32-12e_large-digits.py 2
_base_ = [
    '../_base_/models/uniter_micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1),
        # captions have few words that only the picture tells: more than UNITER's 15 % are asked for
        mlm=dict(type='florence_mm.FusionMLMHead', probability=0.5, at_least_one=True, tied=True),
        mrfr=dict(type='florence_mm.FusionMRFRHead'),
        mrc=dict(type='florence_mm.FusionMRCHead', num_classes=10),
    ),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.WithFalseSamples',
        dataset=dict(
            type='florence_mm.ImageTextManifest',
            ann_file='data/large_digit_questions/train.jsonl',
            data_prefix='data/large_digits/train',
            pipeline=[
                dict(type='florence_mm.LoadRegions', folder='data/large_digit_regions/train'),
                dict(type='florence_mm.PackImageText'),
            ],
        ),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(orthogonal=('text_stack.layers', 'region_embeddings')))
# a step trains one of four tasks, so that heads without gradient are in each
find_unused_parameters = True
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.1, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.1, end=12, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12)
# what the model is for comes with fine-tuning; matching and masked words are logged
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
