# Florence's zero-shot detection (section 3.6): proposals learn all boxes of FLOD-9M as one class, backbone frozen
_base_ = [
    '../_base_/models/zero-shot_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/flod9m_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]

unicl = 'work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth'
model = dict(
    detector=dict(
        backbone=dict(init_cfg=dict(type='florence_mm.Pretrained', checkpoint=unicl, prefix='image_encoder.'))
    ),
    classifier=dict(init_cfg=dict(type='florence_mm.Pretrained', checkpoint=unicl)),
)
train_dataloader = dict(batch_size=1, dataset=dict(class_agnostic=True))
val_dataloader = dict(dataset=dict(class_agnostic=True))
test_dataloader = val_dataloader
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
smoke = dict(optim_wrapper=dict(type='mmengine.OptimWrapper'))
