# Questions about scenes with one to three large digits (docs/meter.md, "The embedded task")
_base_ = './scene_questions.py'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='florence_mm.PictureSampler', shuffle=True),
    dataset=dict(
        question_file='data/large_digit_questions/train_questions.json',
        ann_file='data/large_digit_questions/train_annotations.json',
        answer_file='data/large_digit_questions/answers.txt',
        data_prefix='data/large_digits/train',
    ),
)
val_dataloader = dict(
    dataset=dict(
        question_file='data/large_digit_questions/test_questions.json',
        ann_file='data/large_digit_questions/test_annotations.json',
        answer_file='data/large_digit_questions/answers.txt',
        data_prefix='data/large_digits/test',
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(question_only=True)
test_evaluator = val_evaluator
