# COCO's captions, Karpathy's split: GIT_BASE_COCO. Pictures as in the public test: the shorter side to 224, a centre
# crop
_base_ = [
    '../_base_/models/git_clip-vit-b-16.py',
    '../_base_/datasets/karpathy_coco.py',
    '../_base_/schedules/git_10e.py',
    '../_base_/default_runtime.py',
]

image_size = 224
model = dict(
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/git_clip-vit-b-16_64xb64-2e_coco-vg-cc3m-sbu/epoch_2.pth',
    ),
)
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(
        type='florence_mm.RandomResizedCrop',
        scale=image_size,
        crop_ratio_range=(0.8, 1.0),
        aspect_ratio_range=(1.0, 1.0),
    ),
    dict(type='florence_mm.PackImageText'),
]
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=image_size, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=image_size),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
