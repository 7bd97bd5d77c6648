# ImageNet-1k's validation images as in Swin's code: shorter side to 256, bicubic, centre crop of 224
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=224),
    dict(type='mmpretrain.PackInputs'),
]
test_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(type='mmpretrain.ImageNet', data_root='data/imagenet', split='val', pipeline=test_pipeline),
)
test_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_cfg = dict()
