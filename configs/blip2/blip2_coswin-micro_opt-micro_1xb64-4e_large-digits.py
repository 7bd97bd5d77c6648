# Second stage on the embedded scenes: the small language model of the captions is frozen, and writes about what the
# Q-Former of the first stage reads:
# python tools/train.py configs/blip2/blip2_coswin-micro_opt-micro_1xb64-4e_large-digits.py
# Without the first stage: --cfg-options model.init_cfg=None
_base_ = [
    '../_base_/models/blip2_coswin-micro.py',
    '../_base_/models/opt-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='florence_mm.BLIP2Writer',
    language_model=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/opt-micro_1xb64-6e_large-digits/epoch_6.pth',
            prefix='language_model.',
        ),
        **_base_.language_model,
    ),
    heads=dict(caption=dict(type='florence_mm.FusionCaptionHead', num_beams=3, max_length=24)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip2_coswin-micro_1xb64-8e_large-digits/epoch_8.pth',
        allow_missing=['language_model', 'language_projection'],
    ),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('qformer', 'language_projection'))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.5, end=4, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
test_cfg = dict(type='florence_mm.ControlledTestLoop')
