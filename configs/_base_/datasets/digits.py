# The embedded data: real handwritten digits (python tools/dataset_converters/prepare_digits.py)
# 4 MB of pictures, 28 MB for the crops of scenes: what is read once stays in memory
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='florence_mm.RandomAffineImage', max_rotate=10.0, max_translate=0.08, scale=(0.88, 1.136)),
    dict(type='florence_mm.RandomPrompt', templates='simple', max_words=1),
    dict(type='florence_mm.PackImageText'),
]
# pictures of any size to that of the embedded ones, which it leaves as they are
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=32, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=32),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(type='florence_mm.ImageTextManifest', ann_file='data/digits/train.jsonl', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=150,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/digits/test.jsonl',
        classes='digits',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [
    dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5)),
    dict(type='florence_mm.ImageTextRecall', topk=(1, 5, 10)),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator
