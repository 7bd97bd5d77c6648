# Zero-shot detection on the embedded scenes: proposals are learnt from scenes without "three" and "seven", on the
# frozen backbone of unicl_coswin-micro_1xb64-10e_scene-crops, whose towers then name all ten digits
_base_ = ['./atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py']

unicl = 'work_dirs/unicl_coswin-micro_1xb64-10e_scene-crops/epoch_10.pth'
detector = _base_.model
detector.backbone.init_cfg.checkpoint = unicl
detector.bbox_head.num_classes = 1
model = dict(
    _delete_=True,
    type='florence_mm.ZeroShotDetector',
    detector=detector,
    classifier=dict(
        type='florence_mm.UniCL',
        text_encoder=dict(type='florence_mm.CLIPTextTower', arch='micro', vocab_size=4096),
        tokenizer=dict(type='florence_mm.CLIPTokenizer', vocab_size=4096),
        embed_dims=64,
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint=unicl),
    ),
    crop_size=32,
)
train_dataloader = dict(dataset=dict(ann_file='annotations/train_base.json', data_prefix=dict(img='train_base')))
val_evaluator = dict(subsets=dict(held_out=['three', 'seven']))
test_evaluator = val_evaluator
default_hooks = dict(class_names=dict(templates='simple'))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=0.5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0.5, end=3, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=3, val_interval=3)
