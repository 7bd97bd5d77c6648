# Pretraining of ViLT on captions of the embedded scenes, from a tower that learned them (docs/vilt.md):
# bash tools/dist_train.sh configs/vilt/vilt_coswin-micro_2xb32-2e_large-digits.py 2
_base_ = [
    '../_base_/models/vilt_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1),
        # captions have few words that only the picture tells: more than ViLT's 15 % are asked for
        mlm=dict(type='florence_mm.FusionMLMHead', probability=0.5, whole_word=True),
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
            pipeline=_base_.train_pipeline,
        ),
    )
)
optim_wrapper = dict(paramwise_cfg=dict(orthogonal=('image_encoder', 'transformer')))
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
