# Image-text pairs in webdataset shards with an index (docs/data.md, "Train from shards"), otherwise as image_text_224
_base_ = './image_text_224.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextShards',
        # local; a set in a store, such as 's3://bucket/train', also needs cache=dict(folder='/local/disk', max_gb=500)
        data_root='data/pretrain/shards',
        pipeline=_base_.train_pipeline,
    ),
)
