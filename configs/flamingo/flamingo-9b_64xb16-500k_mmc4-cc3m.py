# Pretraining of the 9B size on interleaved documents and pairs:
# bash tools/dist_train.sh configs/flamingo/flamingo-9b_64xb16-500k_mmc4-cc3m.py 64
_base_ = [
    '../_base_/models/flamingo-9b.py',
    '../_base_/datasets/flamingo_pretrain.py',
    '../_base_/schedules/flamingo_500k.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(checkpoint=dict(interval=10_000, by_epoch=False))
log_processor = dict(by_epoch=False)
