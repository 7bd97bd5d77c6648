# Pairs of the web in shards and documents, 4,096 to 512 as in SimVLM, whose pairs (ALIGN) are not public. The documents
# are those of a part of C4: the texts of a manifest are held in memory
image_size = 224
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.RandomResizedCrop', scale=image_size, crop_ratio_range=(0.5, 1.0)),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=9,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.WeightedMixture',
        datasets=[
            dict(
                weight=8,
                dataset=dict(
                    type='florence_mm.ImageTextShards', data_root='data/pretrain/shards', pipeline=train_pipeline
                ),
            ),
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.TextManifest',
                    ann_file='data/c4/train.parquet',
                    pipeline=[dict(type='florence_mm.PackImageText')],
                ),
            ),
        ],
    ),
)
