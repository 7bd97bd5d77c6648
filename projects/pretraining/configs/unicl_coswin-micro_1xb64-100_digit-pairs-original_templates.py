# The second stage without what it changes: all texts, short ones in templates
_base_ = './unicl_coswin-micro_1xb64-100_digit-pairs-original.py'

train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(type='florence_mm.RandomPrompt', templates='simple', max_words=3),
    _base_.train_pipeline[-1],
]
train_dataloader = dict(dataset=dict(drop_augmented=False, pipeline=train_pipeline))
