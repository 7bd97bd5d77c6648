# Captions on COCO (section 4.2; configs/caption_coco.yaml of the public code): 384 pixels, 5 epochs, 1e-5, "a picture
# of" before every caption, beams of three. Lengths in the public code, 5 to 20, count the start and the prompt, four
# tokens
_base_ = [
    '../_base_/models/blip_vit-b-16.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/blip_finetune.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import replace_step

replace_step(
    _base_.train_dataloader,
    'Resize',
    dict(type='florence_mm.RandomResizedCrop', scale=384, crop_ratio_range=(0.5, 1.0)),
    dict(type='mmcv.RandomFlip', prob=0.5),
)
model = dict(
    image_encoder=dict(img_size=384),
    heads=dict(
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            tied=True,
            prompt='a picture of',
            label_smoothing=0.1,
            num_beams=3,
            min_length=1,
            max_length=16,
        )
    ),
    max_text_len=40,
    init_cfg=dict(
        type='florence_mm.Pretrained', checkpoint='work_dirs/blip_vit-b-16_32xb90-20e_coco-vg-cc-sbu/epoch_20.pth'
    ),
)
# the encoder's self-attention gets no gradient
find_unused_parameters = True
