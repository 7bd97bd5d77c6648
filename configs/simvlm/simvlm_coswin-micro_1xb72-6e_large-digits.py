# Prefix language model on the captions of the embedded scenes and on texts alone (docs/simvlm.md); tested by completing
# the second half of captions:
# python tools/train.py configs/simvlm/simvlm_coswin-micro_1xb72-6e_large-digits.py
_base_ = [
    '../_base_/models/simvlm_coswin-micro.py',
    '../_base_/datasets/large_digit_prefixes.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            random_prefix=True,
            complete=0.5,
            tied=True,
            transform=False,
            max_length=24,
        )
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'encoder', 'decoder')))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
train_dataloader = dict(batch_size=72)
# the same test with other pictures, without image tokens and without any picture
test_cfg = dict(type='florence_mm.ControlledTestLoop', controls=('exchanged', 'zero', 'alone'))
