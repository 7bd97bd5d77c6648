# The embedded tasks about scenes with one to three large digits (docs/data.md, "The embedded tasks")
num_bins = 32  # a location for two pixels
task_files = [
    'caption',
    'detection',
    'region_category',
    'phrase_grounding',
    'referring',
    'referring_segmentation',
    'ocr_with_region',
]
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
    batch_size=16,  # many updates count for more than large batches
    num_workers=0,  # a worker would take longer to hand over pictures this small than they take to read
    drop_last=True,
    # two rows about a picture, of any tasks, come one after the other, so that batches have few pictures to encode
    sampler=dict(type='florence_mm.PictureSampler', shuffle=True, infinite=True, together=2),
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='florence_mm.TaskManifest',
                ann_file=f'data/large_digit_tasks/train_{name}.jsonl',
                data_prefix='data/outlined_large_digits/train',
                pipeline=train_pipeline,
            )
            for name in task_files
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
            for name in task_files
        ],
    ),
)
test_dataloader = val_dataloader
