# Florence's first stage (section 2.2): 1M iterations at 224 pixels, all texts, short ones in templates
_base_ = [
    '../_base_/models/unicl_coswin-h.py',
    '../_base_/datasets/image_text_224.py',
    '../_base_/schedules/florence_1m.py',
    '../_base_/parallel/fsdp2.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=48, dataset=dict(ann_file='data/fld900m/train.parquet'))
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
