# First stage on the embedded scenes: contrast, matching and captions from a frozen tower; tested by its captions:
# python tools/train.py configs/blip2/blip2_coswin-micro_1xb64-8e_large-digits.py
_base_ = [
    '../_base_/models/blip2_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        itc=dict(type='florence_mm.FusionITCHead', embed_dims=64, label_smoothing=0.1),
        itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        caption=dict(
            type='florence_mm.FusionCaptionHead', tied=True, label_smoothing=0.1, num_beams=3, max_length=24
        ),
    ),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('qformer',)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.5, end=8, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=8)
test_cfg = dict(type='florence_mm.ControlledTestLoop')
