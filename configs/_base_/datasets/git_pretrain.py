# The 4 million pictures of GIT-base: COCO, Visual Genome, Conceptual Captions 3M and SBU. Weights are millions of
# captions; manifests as in docs/data.md
_base_ = './meter_pretrain.py'

image_size = 224
# pictures are neither turned, as captions say left and right, nor stretched
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(
        type='florence_mm.RandomResizedCrop',
        scale=image_size,
        crop_ratio_range=(0.8, 1.0),
        aspect_ratio_range=(1.0, 1.0),
    ),
    dict(type='florence_mm.PackImageText'),
]
_coco = dict(
    type='florence_mm.ImageTextManifest',
    ann_file='data/coco/karpathy/train.jsonl',
    data_prefix='data/coco',
    pipeline=train_pipeline,
)
_web = dict(type='florence_mm.ImageTextManifest', skip_bad=dict(max=10_000), pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        datasets=[
            dict(weight=0.57, dataset=_coco),
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
            dict(weight=3.0, dataset=dict(ann_file='data/cc3m/train.parquet', **_web)),
            dict(weight=0.86, dataset=dict(ann_file='data/sbu/train.parquet', **_web)),
        ],
    ),
)
