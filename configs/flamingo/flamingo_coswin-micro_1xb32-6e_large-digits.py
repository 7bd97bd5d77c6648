# Flamingo on documents of the embedded scenes: three pictures, each followed by its caption; tested with controls:
# python tools/train.py configs/flamingo/flamingo_coswin-micro_1xb32-6e_large-digits.py
_base_ = [
    '../_base_/models/flamingo_coswin-micro.py',
    '../_base_/datasets/large_digit_documents.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(caption=dict(type='florence_mm.DocumentHead', weights=dict(interleaved=1.0, pairs=0.2), max_length=24)),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('resampler.layers', 'blocks'))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
test_cfg = dict(type='florence_mm.ControlledTestLoop')
