# Captions of scenes with one to three large digits (docs/meter.md, "The embedded task")
_base_ = './scene_captions.py'
train_dataloader = dict(
    dataset=dict(ann_file='data/large_digit_questions/train.jsonl', data_prefix='data/large_digits/train')
)
val_dataloader = dict(
    dataset=dict(ann_file='data/large_digit_questions/test.jsonl', data_prefix='data/large_digits/test')
)
test_dataloader = val_dataloader
