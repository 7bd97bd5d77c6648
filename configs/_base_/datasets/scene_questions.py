# The embedded questions about the scenes (tools/dataset_converters/prepare_scenes.py, then prepare_questions.py)
# neither flipped nor cropped: in the mirror left is right
train_pipeline = [dict(type='florence_mm.LoadImage', keep_mb=256), dict(type='florence_mm.PackVQA')]
test_pipeline = [dict(type='florence_mm.LoadImage'), dict(type='florence_mm.PackVQA')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.VQADataset',
        question_file='data/questions/train_questions.json',
        ann_file='data/questions/train_annotations.json',
        answer_file='data/questions/answers.txt',
        data_prefix='data/scenes/train',
        img_pattern='{:06d}.png',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VQADataset',
        question_file='data/questions/test_questions.json',
        ann_file='data/questions/test_annotations.json',
        answer_file='data/questions/answers.txt',
        data_prefix='data/scenes/test',
        img_pattern='{:06d}.png',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.VQAAccuracy', per_question_type=True)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
