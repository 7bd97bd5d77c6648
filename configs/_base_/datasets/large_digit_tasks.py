# The embedded tasks about scenes with one to three large digits (docs/data.md, "The embedded tasks")
num_bins = 64  # a location a pixel
task_weights = dict(
    caption=1,
    detection=2,
    region_category=1,
    phrase_grounding=1,
    referring=1,
    referring_segmentation=2,
    ocr_with_region=1,
)
# neither flipped nor cropped: answers have places, and a mirrored digit is none
train_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='florence_mm.PackTask', format=dict(num_bins=num_bins)),
]
# pictures of any size to that of the embedded ones, which it leaves as they are
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(64, 64)),
    dict(type='florence_mm.PackTask', format=dict(num_bins=num_bins)),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.WeightedMixture',
        epoch_size=32_000,
        datasets=[
            dict(
                weight=weight,
                dataset=dict(
                    type='florence_mm.TaskManifest',
                    ann_file=f'data/large_digit_tasks/train_{name}.jsonl',
                    data_prefix='data/outlined_large_digits/train',
                    pipeline=train_pipeline,
                ),
            )
            for name, weight in task_weights.items()
        ],
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='florence_mm.TaskManifest',
                ann_file=f'data/large_digit_tasks/test_{name}.jsonl',
                data_prefix='data/outlined_large_digits/test',
                test_mode=True,
                pipeline=test_pipeline,
            )
            for name in task_weights
        ],
    ),
)
test_dataloader = val_dataloader
