# Captions of the embedded scenes, from the pretrained fusion:
# bash tools/dist_train.sh configs/meter/meter_coswin-micro_caption_2xb16-4e_large-digits.py 2
_base_ = [
    '../_base_/models/meter_coswin-micro.py',
    '../_base_/datasets/large_digit_captions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(init_cfg=None),
    text_encoder=dict(tower=dict(init_cfg=None)),
    heads=dict(caption=dict(type='florence_mm.FusionCaptionHead', num_beams=3, max_length=24)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/meter_coswin-micro_2xb32-2e_large-digits/epoch_2.pth',
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.2, end=4, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
train_dataloader = dict(batch_size=16)
# poolers, and what image tokens would read text with, get no gradient
find_unused_parameters = True
