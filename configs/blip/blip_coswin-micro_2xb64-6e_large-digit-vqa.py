# Questions about the embedded scenes from the pretrained BLIP: the encoder reads the question with the picture, and a
# decoder of its own, which begins with what writes captions, writes the answer from the states of the question:
# bash tools/dist_train.sh configs/blip/blip_coswin-micro_2xb64-6e_large-digit-vqa.py 2
_base_ = [
    '../_base_/models/blip_coswin-micro.py',
    '../_base_/datasets/large_digit_questions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(init_cfg=None),
    decoder=dict(),
    heads=dict(vqa=dict(type='florence_mm.FusionWrittenAnswerHead', tied=True, max_length=4)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip_coswin-micro_2xb32-12e_large-digits/epoch_12.pth',
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3),
    paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'text_encoder', 'text_decoder')),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
train_dataloader = dict(batch_size=64)
test_cfg = dict(type='florence_mm.ControlledTestLoop')
