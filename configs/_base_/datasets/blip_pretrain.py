# The pairs of METER's pretraining at 224 pixels, cropped at random and flipped as in BLIP's public code
_base_ = './meter_pretrain.py'
from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import replace_step

set_image_size(_base_, 224)
for part in _base_.train_dataloader.dataset.datasets:
    replace_step(
        part.dataset.pipeline,
        'Resize',
        dict(type='florence_mm.RandomResizedCrop', scale=_base_.image_size, crop_ratio_range=(0.2, 1.0)),
        dict(type='mmcv.RandomFlip', prob=0.5),
    )
del part
