# Florence's fine-tuning on ImageNet-1K (section 3.3): UniCL's loss with classes that begin as their text features, 512
# pixels, batch 8192, 10 epochs, cosine, 500 steps of warm-up, learning rate 2e-5. Not stated: the optimizer's other
# settings and the augmentation, which stay those of pretraining. Window 16 makes the map of each stage divide
_base_ = './unicl_coswin-h_512xb48-80k_fld900m-384.py'
from florence_mm.config.image_size import set_image_size

set_image_size(_base_, 512)
towers = _base_.model
data_preprocessor = towers.pop('data_preprocessor')
towers.image_encoder.update(img_size=512, window_size=16)
towers.init_cfg = dict(
    type='florence_mm.Pretrained',
    checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
)
model = dict(
    _delete_=True,
    type='florence_mm.UniCLClassifier',
    data_preprocessor=data_preprocessor,
    towers=towers,
    classes='imagenet1k',
    templates='imagenet1k',
)
load_from = None
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageFolderText',
        data_root='data/imagenet/train',
        class_names='imagenet1k',
        pipeline=_base_.train_pipeline,
    ),
)
val_evaluator = dict(prefix='classification')
test_evaluator = val_evaluator
# 1,281,167 images are 156 batches of 8,192 an epoch
max_iters = 1_560
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=500, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=2e-5))
train_cfg = dict(max_iters=max_iters, val_interval=156)
default_hooks = dict(checkpoint=dict(interval=156))
auto_scale_lr = dict(base_batch_size=8_192)
# one prompt of four classes, those that the generated data have
towers_smoke = _base_.smoke.model
towers_smoke.image_encoder.arch.update(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])
smoke = dict(
    model=dict(
        _delete_=True,
        towers=towers_smoke,
        classes=['tench', 'goldfish', 'great white shark', 'tiger shark'],
        templates='none',
    ),
)
