# The second stage without what it changes: all texts, short ones in templates
_base_ = './unicl_coswin-micro_1xb64-100_digit-pairs-original.py'
from florence_mm.config.pick import insert_before

template = dict(type='florence_mm.RandomPrompt', templates='simple', max_words=3)
train_pipeline = insert_before(_base_.train_pipeline, 'PackImageText', template)
train_dataloader = dict(dataset=dict(drop_augmented=False, pipeline=train_pipeline))
