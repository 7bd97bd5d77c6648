# The end of Florence-2-base's pretraining at 768 pixels: 0.5 G samples in batches of 2,048
_base_ = './florence2-base_256xb8-1465k_annotated-384.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 768)
model = dict(
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/florence2-base_256xb8-1465k_annotated-384/iter_1465000.pth',
    )
)
max_iters = 244_000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=5_000),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=5_000, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
