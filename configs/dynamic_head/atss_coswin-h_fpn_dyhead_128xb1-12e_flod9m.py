# Florence's detector pretraining (section 2.4): 12 epochs of FLOD-9M, 128 pictures a step, 25,190 classes
_base_ = [
    '../_base_/models/atss_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/flod9m_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
            prefix='image_encoder.',
        )
    ),
    bbox_head=dict(num_classes=25_190),
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
