# Interleaved documents of web pages (MMC4 or OBELICS, tars as in docs/data.md) and pairs; tested on COCO's captions
# behind four examples
_base_ = './karpathy_coco.py'
image_size = 224
max_pictures = 5
_steps = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=image_size, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=image_size),
]
_pack = dict(type='florence_mm.PackDocument', max_pictures=max_pictures)
train_pipeline = [*_steps, dict(data_source='interleaved', **_pack)]
pairs_pipeline = [*_steps, dict(data_source='pairs', **_pack)]
test_pipeline = [*_steps, dict(type='florence_mm.PackImageText')]
_bad = dict(max=0.05)
_documents = dict(
    type='florence_mm.DocumentDataset',
    ann_file='data/mmc4/*.tar',
    max_pictures=max_pictures,
    least_similarity=0.24,
    skip_bad=_bad,
    pipeline=train_pipeline,
)
_pairs = dict(
    type='florence_mm.ImageTextManifest',
    ann_file='data/cc3m/train.parquet',
    skip_bad=_bad,
    pipeline=pairs_pipeline,
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        _delete_=True,
        type='florence_mm.WeightedMixture',
        datasets=[dict(weight=1, dataset=_documents), dict(weight=2, dataset=_pairs)],
    ),
)
_captions = dict(type='florence_mm.ImageTextManifest', data_prefix='data/coco', test_mode=True, pipeline=test_pipeline)
_support = dict(ann_file='data/coco/karpathy/train.jsonl', **_captions)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.FewShotDataset',
        dataset=dict(ann_file='data/coco/karpathy/val.jsonl', **_captions),
        support=_support,
        shots=4,
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.FewShotDataset',
        dataset=dict(ann_file='data/coco/karpathy/test.jsonl', **_captions),
        support=_support,
        shots=4,
    )
)
