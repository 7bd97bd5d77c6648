# Florence-2-base on the objects of COCO-format files, such as one's own: other files by --cfg-options of the data sets
_base_ = [
    '../_base_/models/florence2-base.py',
    '../_base_/datasets/coco_tasks.py',
    '../_base_/schedules/florence2_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Microsoft's weights (docs/florence2.md), or those of a pretraining
    init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/florence-2-base/pytorch_model.bin')
)
