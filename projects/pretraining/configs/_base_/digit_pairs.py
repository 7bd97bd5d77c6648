# Pictures of one digit with its class, of two with captions (projects/pretraining/data.py)
image_size = 32
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='mmpretrain.ResizeEdge', scale=image_size, edge='short', backend='cv2', interpolation='area'),
    dict(type='florence_mm.RandomAffineImage', max_rotate=8.0, max_translate=0.04, scale=(0.92, 1.08)),
    # "four and five" is short, too
    dict(type='florence_mm.RandomPrompt', templates='simple', max_words=3),
    dict(type='florence_mm.PackImageText'),
]
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=image_size, edge='short', backend='cv2', interpolation='area'),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/digit_pairs/train.jsonl',
        classes='digits',
        pipeline=train_pipeline,
    ),
)
# retrieval is validated, classification tested
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/digit_pairs/test_captions.jsonl',
        classes='digits',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [dict(type='florence_mm.ImageTextRecall')]
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/digit_pairs/test_classes.jsonl',
        classes='digits',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = [dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))]
