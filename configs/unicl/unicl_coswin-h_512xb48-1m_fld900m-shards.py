# Florence's first stage (section 2.2) from shards, as tools/curate.py writes them; the next stages read them too with
# train_dataloader.dataset of this file
_base_ = [
    '../_base_/models/unicl_coswin-h.py',
    '../_base_/datasets/image_text_shards_224.py',
    '../_base_/schedules/florence_1m.py',
    '../_base_/parallel/fsdp2.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=48, dataset=dict(data_root='data/fld900m/shards'))
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
