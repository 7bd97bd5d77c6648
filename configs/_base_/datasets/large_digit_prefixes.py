# Captions of scenes with one to three large digits, and one in nine of their texts without its scene, as documents
_base_ = './large_digit_captions.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.WeightedMixture',
        epoch_size=4500,
        datasets=[
            dict(
                weight=8,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/large_digit_questions/train.jsonl',
                    data_prefix='data/large_digits/train',
                    pipeline=_base_.train_pipeline,
                ),
            ),
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.TextManifest',
                    ann_file='data/large_digit_questions/train.jsonl',
                    pipeline=[dict(type='florence_mm.PackImageText')],
                ),
            ),
        ],
    )
)
