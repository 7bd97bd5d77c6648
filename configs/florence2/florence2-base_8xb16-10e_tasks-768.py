# Florence-2-base on a mixture of tasks of published annotations, tested on RefCOCO: the paper's generalist
_base_ = [
    '../_base_/models/florence2-base.py',
    '../_base_/datasets/task_mixture.py',
    '../_base_/schedules/florence2_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Microsoft's weights (docs/florence2.md), or those of a pretraining
    init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/florence-2-base/pytorch_model.bin')
)
