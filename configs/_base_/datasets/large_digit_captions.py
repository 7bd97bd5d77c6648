# Captions of scenes with one to three large digits (docs/meter.md, "The embedded task")
_base_ = './scene_captions.py'
# pictures of any size to that of the embedded ones, which it leaves as they are
square = [
    dict(type='mmpretrain.ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=64),
]
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    *square,
    dict(type='florence_mm.PackImageText'),
]
test_pipeline = [dict(type='florence_mm.LoadImage'), *square, dict(type='florence_mm.PackImageText')]
train_dataloader = dict(
    dataset=dict(
        ann_file='data/large_digit_questions/train.jsonl',
        data_prefix='data/large_digits/train',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='data/large_digit_questions/test.jsonl',
        data_prefix='data/large_digits/test',
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
