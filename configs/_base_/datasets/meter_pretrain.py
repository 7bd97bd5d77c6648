# Pretraining of the fusion on COCO, Visual Genome, Conceptual Captions 3M and 12M, and SBU (Florence, section 2.5: 14
# million pictures with 20 million captions). Weights are millions of captions; manifests as in docs/data.md
image_size = 384
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(image_size, image_size)),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.WeightedMixture',
        datasets=[
            dict(
                weight=0.57,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/coco/karpathy/train.jsonl',
                    data_prefix='data/coco',
                    pipeline=train_pipeline,
                ),
            ),
            dict(
                weight=5.4,
                # one row a picture with the texts of its regions
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/visual_genome/captions.jsonl',
                    data_prefix='data/visual_genome/images',
                    pipeline=train_pipeline,
                ),
            ),
            dict(
                weight=3.0,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/cc3m/train.parquet',
                    skip_bad=dict(max=10_000),
                    pipeline=train_pipeline,
                ),
            ),
            dict(
                weight=10.0,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/cc12m/train.parquet',
                    skip_bad=dict(max=10_000),
                    pipeline=train_pipeline,
                ),
            ),
            dict(
                weight=0.86,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/sbu/train.parquet',
                    skip_bad=dict(max=10_000),
                    pipeline=train_pipeline,
                ),
            ),
        ],
    ),
)
