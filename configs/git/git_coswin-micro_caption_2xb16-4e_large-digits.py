# Captions of the embedded scenes:
# bash tools/dist_train.sh configs/git/git_coswin-micro_caption_2xb16-4e_large-digits.py 2
_base_ = [
    '../_base_/models/git_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(
        caption=dict(type='florence_mm.FusionCaptionHead', tied=True, transform=False, num_beams=3, max_length=24)
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.2, end=4, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'text_stack')))
test_cfg = dict(type='florence_mm.ControlledTestLoop')
