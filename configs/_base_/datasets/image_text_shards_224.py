# Image-text pairs in webdataset shards with an index (docs/data.md, "Train from shards"), otherwise as image_text_224
_base_ = './image_text_224.py'
train_dataloader = dict(
    # a batch is handed over in one piece: two workers give 1.8 times the pictures of one, 1.6 with the usual collating
    collate_fn=dict(type='florence_mm.collate_in_one_piece'),
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextShards',
        # local; a set in a store, such as 's3://bucket/train', also needs cache=dict(folder='/local/disk', max_gb=500)
        data_root='data/pretrain/shards',
        pipeline=_base_.train_pipeline,
    ),
)
