# The embedded captions of the scenes (tools/dataset_converters/prepare_scenes.py, then prepare_questions.py)
# neither flipped nor cropped: captions name digits from left to right
train_pipeline = [dict(type='florence_mm.LoadImage', keep_mb=256), dict(type='florence_mm.PackImageText')]
test_pipeline = [dict(type='florence_mm.LoadImage'), dict(type='florence_mm.PackImageText')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/questions/train.jsonl',
        data_prefix='data/scenes/train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/questions/test.jsonl',
        data_prefix='data/scenes/test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.CaptionScores')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
