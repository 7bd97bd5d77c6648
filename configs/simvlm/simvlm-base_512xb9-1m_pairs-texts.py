# SimVLM-base's pretraining: the prefix language model on pairs and documents, 4,096 and 512 in each of 1M iterations
_base_ = [
    '../_base_/models/simvlm-base.py',
    '../_base_/datasets/pairs_texts_224.py',
    '../_base_/schedules/simvlm_1m.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(caption=dict(type='florence_mm.FusionCaptionHead', random_prefix=True, tied=True, transform=False))
)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
