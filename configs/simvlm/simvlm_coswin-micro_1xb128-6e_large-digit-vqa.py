# Answers to questions about the embedded scenes, written from the pretrained prefix language model:
# python tools/train.py configs/simvlm/simvlm_coswin-micro_1xb128-6e_large-digit-vqa.py
_base_ = [
    '../_base_/models/simvlm_coswin-micro.py',
    '../_base_/datasets/large_digit_questions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(init_cfg=None),
    heads=dict(
        answer=dict(
            type='florence_mm.FusionWrittenAnswerHead',
            answers='data/large_digit_questions/answers.txt',
            max_length=4,
            tied=True,
            transform=False,
        )
    ),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/simvlm_coswin-micro_1xb72-6e_large-digits/epoch_6.pth',
        allow_missing=['heads'],
    ),
)
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(_delete_=True, orthogonal=('image_encoder', 'encoder', 'decoder'))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
train_dataloader = dict(batch_size=128)
# the same test with other pictures, without image tokens and without any picture
test_cfg = dict(type='florence_mm.ControlledTestLoop', controls=('exchanged', 'zero', 'alone'))
