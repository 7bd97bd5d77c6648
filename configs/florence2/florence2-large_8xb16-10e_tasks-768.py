# Florence-2-large on the same mixture
_base_ = [
    '../_base_/models/florence2-large.py',
    '../_base_/datasets/task_mixture.py',
    '../_base_/schedules/florence2_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/florence-2-large/pytorch_model.bin'))
