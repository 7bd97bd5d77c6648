# Questions about scenes with one to three large digits (docs/meter.md, "The embedded task")
_base_ = './scene_questions.py'
# pictures of any size to that of the embedded ones, which it leaves as they are
square = [
    dict(type='mmpretrain.ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=64),
]
# PictureSampler gives the questions of a picture one seed, so that it is shifted equally for all; left stays left
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    *square,
    dict(type='florence_mm.RandomAffineImage', max_rotate=0.0, max_translate=0.06, scale=(0.89, 1.12)),
    dict(type='florence_mm.PackVQA'),
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type='florence_mm.PictureSampler', shuffle=True),
    dataset=dict(
        question_file='data/large_digit_questions/train_questions.json',
        ann_file='data/large_digit_questions/train_annotations.json',
        answer_file='data/large_digit_questions/answers.txt',
        data_prefix='data/large_digits/train',
        pipeline=train_pipeline,
    ),
)
test_pipeline = [dict(type='florence_mm.LoadImage'), *square, dict(type='florence_mm.PackVQA')]
val_dataloader = dict(
    dataset=dict(
        question_file='data/large_digit_questions/test_questions.json',
        ann_file='data/large_digit_questions/test_annotations.json',
        answer_file='data/large_digit_questions/answers.txt',
        data_prefix='data/large_digits/test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(question_only=True)
test_evaluator = val_evaluator
