# Florence on Objects365 (section 3.6): longer side up to 1333 pixels. Not stated: epochs, batch, learning rate
_base_ = [
    '../_base_/models/atss_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/objects365v2_detection.py',
    '../_base_/schedules/dyhead_1x.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/atss_coswin-h_fpn_dyhead_128xb1-12e_flod9m/epoch_12.pth'
model = dict(bbox_head=dict(num_classes=365))
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(type='florence_mm.FlorenceAmpOptimWrapper')
