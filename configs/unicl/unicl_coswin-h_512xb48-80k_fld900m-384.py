# Florence's last stage (section 2.2): 80K iterations at 384 pixels. The batch there is not stated; window 12 makes
# the map of each stage divide, as the public code demands
_base_ = './unicl_coswin-h_512xb48-180k_fld900m-original.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 384)
load_from = 'work_dirs/unicl_coswin-h_512xb48-180k_fld900m-original/iter_180000.pth'
# blocks of the image tower are computed again in the backward pass, which the 40 GB of the paper's GPUs need here
model = dict(image_encoder=dict(img_size=384, window_size=12, with_cp=True))
max_iters = 80_000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1_000),
    dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=False, begin=1_000, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=2e-5))
train_cfg = dict(max_iters=max_iters)
