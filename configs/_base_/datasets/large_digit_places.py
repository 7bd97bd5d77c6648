# Which digit is at a place of the embedded scenes with one to three large digits (docs/data.md, "The embedded scenes")
nothing = 10  # the label of a place without a digit
data_root = 'data/large_digits'
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    # neither flipped nor cropped: a digit in the mirror is none
    dict(type='florence_mm.PackPlaces', nothing=nothing, per_box=4, elsewhere=4),
]
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.PackPlaces', nothing=nothing, seed=0),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.DetectionDataset',
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.DetectionDataset',
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='test'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='florence_mm.PlaceAccuracy', nothing=nothing)
test_evaluator = val_evaluator
