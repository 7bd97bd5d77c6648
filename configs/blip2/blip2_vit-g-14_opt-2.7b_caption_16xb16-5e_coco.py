# Captions on COCO after the second stage: 364 pixels, 5 epochs of batches of 256, 1e-5, "a photo of" before every caption,
# beams of five. The image encoder learns too, and checkpoints hold it
_base_ = [
    '../_base_/models/blip2_vit-g-14_opt-2.7b.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/blip_finetune.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 364)
model = dict(
    image_encoder=dict(img_size=364, with_cp=True),
    freeze_image_encoder=False,
    heads=dict(
        caption=dict(type='florence_mm.FusionCaptionHead', prompt='a photo of', num_beams=5, min_length=1, max_length=30)
    ),
    max_text_len=44,
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip2_vit-g-14_opt-2.7b_16xb120-80k_coco-vg-cc-sbu/iter_80000.pth',
        allow_missing=['image_encoder', 'language_model'],
    ),
)
train_dataloader = dict(batch_size=16)
