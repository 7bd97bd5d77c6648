# Questions about the embedded scenes, from the pretrained ViLT:
# bash tools/dist_train.sh configs/vilt/vilt_coswin-micro_2xb64-6e_large-digit-vqa.py 2
_base_ = [
    '../_base_/models/vilt_coswin-micro.py',
    '../_base_/datasets/large_digit_questions.py',
    '../_base_/schedules/meter_micro.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(init_cfg=None),
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', answers='data/large_digit_questions/answers.txt', width=192)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/vilt_coswin-micro_2xb32-2e_large-digits/epoch_2.pth',
    ),
)
# a new head on what is pretrained: the head five times as fast
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3), paramwise_cfg=dict(orthogonal=('image_encoder', 'transformer'), lr_mult=dict(heads=5))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.2, convert_to_iter_based=True),
    dict(type='PolyLR', power=1.0, eta_min=1e-5, by_epoch=True, begin=0.2, end=6, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
train_dataloader = dict(batch_size=64)
