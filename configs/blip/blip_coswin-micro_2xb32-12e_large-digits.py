# Contrast, matching and captions of the embedded scenes; tested by its captions:
# bash tools/dist_train.sh configs/blip/blip_coswin-micro_2xb32-12e_large-digits.py 2
_base_ = [
    '../_base_/models/blip_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        itc=dict(type='florence_mm.FusionITCHead', embed_dims=64, momentum=0.99, queue_size=640, alpha_steps=124),
        itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        caption=dict(type='florence_mm.FusionCaptionHead', tied=True, num_beams=3, max_length=24),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'text_encoder')))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.5, end=12, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=12)
test_cfg = dict(type='florence_mm.ControlledTestLoop')
