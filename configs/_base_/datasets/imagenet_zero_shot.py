# Zero-shot ImageNet with CLIP's preprocessing: shorter side to the model's resolution, bicubic, centre crop
image_size = 224
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=image_size, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=image_size),
    dict(type='florence_mm.PackImageText'),
]
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageFolderText',
        data_root='data/imagenet/val',
        class_names='imagenet1k',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))
test_cfg = dict()
