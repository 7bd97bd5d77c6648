# VQAv2 for one machine: CoSwin-T at the 384 pixels of pretraining, METER's learning rates
_base_ = [
    '../_base_/models/meter_coswin-t.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/meter_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 384)
model = dict(
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', num_answers=3129)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/meter_coswin-t_roberta_8xb64-10e_coco-vg-cc-sbu/epoch_10.pth',
    ),
)
train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=64)
test_dataloader = dict(batch_size=64)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(heads=50)))
