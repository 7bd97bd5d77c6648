# Detection as a task on COCO-format files, whose class names are taken: data/coco, or one's own by data_root, ann_file
# and data_prefix (docs/florence2.md)
image_size = 768
pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(image_size, image_size)),
    dict(type='florence_mm.PackTask'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.CocoTasks',
        task='detection',
        data_root='data/coco',
        ann_file='annotations/instances_train2017.json',
        data_prefix='train2017',
        skip_bad=dict(max=100),  # two boxes of train2017 have no height
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.CocoTasks',
        task='detection',
        data_root='data/coco',
        ann_file='annotations/instances_val2017.json',
        data_prefix='val2017',
        test_mode=True,
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='florence_mm.WrittenBoxes')
test_evaluator = val_evaluator
