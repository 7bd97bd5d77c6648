# Annotated pictures of one's own in the place of FLD-5B, which is not public: a manifest a task, as the data engine
# writes it (docs/data.md). Pictures are squashed to a square, so that coordinates stay fractions of them
image_size = 384
tasks = (
    'caption',
    'detailed_caption',
    'more_detailed_caption',
    'detection',
    'dense_region_caption',
    'region_proposal',
    'phrase_grounding',
    'referring_segmentation',
    'region_segmentation',
    'region_category',
    'region_description',
    'ocr_with_region',
)
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(image_size, image_size)),
    dict(type='florence_mm.PackTask'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.WeightedMixture',
        datasets=[
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.TaskManifest',
                    ann_file=f'data/annotated/train_{name}.jsonl',
                    data_prefix='data/annotated/images',
                    pipeline=train_pipeline,
                ),
            )
            for name in tasks
        ],
    ),
)
