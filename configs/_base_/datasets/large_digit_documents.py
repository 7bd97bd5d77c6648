# Documents of three pictures of large digits, each followed by a caption
# (tools/dataset_converters/prepare_documents.py), and pictures with one caption; tested by captions behind examples
# from the training set
_base_ = './large_digit_captions.py'
_square = _base_.square
_steps = [dict(type='florence_mm.LoadImage', keep_mb=256), *_square]
_captions = dict(
    type='florence_mm.ImageTextManifest',
    test_mode=True,
    pipeline=[dict(type='florence_mm.LoadImage', keep_mb=256), *_square, dict(type='florence_mm.PackImageText')],
)
_train_captions = dict(
    ann_file='data/large_digit_questions/train.jsonl', data_prefix='data/large_digits/train', **_captions
)
_test_captions = dict(
    ann_file='data/large_digit_questions/test.jsonl', data_prefix='data/large_digits/test', **_captions
)
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True,
        type='florence_mm.WeightedMixture',
        datasets=[
            dict(
                weight=3,
                dataset=dict(
                    type='florence_mm.DocumentDataset',
                    ann_file='data/large_digit_documents/train.jsonl',
                    data_prefix='data/large_digits/train',
                    max_pictures=3,
                    pipeline=[
                        *_steps,
                        dict(type='florence_mm.PackDocument', max_pictures=3, data_source='interleaved'),
                    ],
                ),
            ),
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/large_digit_questions/train.jsonl',
                    data_prefix='data/large_digits/train',
                    pipeline=[*_steps, dict(type='florence_mm.PackDocument', max_pictures=3, data_source='pairs')],
                ),
            ),
        ],
        epoch_size=4000,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.FewShotDataset',
        dataset=_test_captions,
        support=_train_captions,
        shots=0,
        template='{answer}',
    )
)
test_dataloader = val_dataloader
