# Towers that know digits cut out of scenes go on with captions of whole scenes; METER starts from them (docs/meter.md):
# bash tools/dist_train.sh configs/unicl/unicl_coswin-micro_2xb32-5e_large-digits.py 2
_base_ = ['./unicl_coswin-micro_1xb64-22e_digits.py']

load_from = 'work_dirs/unicl_coswin-micro_2xb64-4e_scene-crops/epoch_4.pth'
# neither flipped nor cropped: captions name digits from left to right
train_pipeline = [dict(type='florence_mm.LoadImage', keep_mb=256), dict(type='florence_mm.PackImageText')]
# pictures of any size to that of the embedded ones, which it leaves as they are
test_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='mmpretrain.ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=64),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextManifest',
        ann_file='data/large_digit_questions/train.jsonl',
        data_prefix='data/large_digits/train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextManifest',
        ann_file='data/large_digit_questions/test.jsonl',
        data_prefix='data/large_digits/test',
        test_mode=True,
        pipeline=test_pipeline,
    )
)
val_evaluator = [dict(type='florence_mm.ImageTextRecall')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=2e-3, share=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5, val_interval=5)
# captions have no classes
default_hooks = dict(class_names=None, checkpoint=dict(interval=6))
