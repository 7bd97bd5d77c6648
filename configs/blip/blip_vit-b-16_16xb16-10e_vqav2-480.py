# Questions of VQAv2 (section 4.4; configs/vqa.yaml of the public code): 480 pixels, 10 epochs, 2e-5. An answer is
# written from the states of its question; in the test the best of the answer list is chosen, of 128 by their first
# token. Encoder and decoder, which share weights in pretraining, start from them and share none from there on
_base_ = [
    '../_base_/models/blip_vit-b-16.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/blip_finetune.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import replace_step

set_image_size(_base_, 480)
for part in _base_.train_dataloader.dataset.datasets:
    replace_step(
        part.pipeline,
        'Resize',
        dict(type='florence_mm.RandomResizedCrop', scale=480, crop_ratio_range=(0.5, 1.0)),
        dict(type='mmcv.RandomFlip', prob=0.5),
    )
del part
model = dict(
    image_encoder=dict(img_size=480),
    decoder=dict(),
    heads=dict(
        vqa=dict(
            type='florence_mm.FusionWrittenAnswerHead',
            tied=True,
            label_smoothing=0.1,
            answers='data/vqav2/answers.txt',
            rank=128,
        )
    ),
    max_text_len=45,
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip_vit-b-16_32xb90-20e_coco-vg-cc-sbu/epoch_20.pth',
    ),
)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=2e-5))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=10)]
train_cfg = dict(max_epochs=10)
