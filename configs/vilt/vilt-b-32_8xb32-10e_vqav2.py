# Questions of VQAv2: 10 epochs of 256, the head ten times as fast
_base_ = [
    '../_base_/models/vilt-b-32.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/vilt_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import replace_step

for part in _base_.train_dataloader.dataset.datasets:
    replace_step(part.pipeline, 'Resize', dict(type='florence_mm.ResizeWithin'))
del part
for loader in (_base_.val_dataloader, _base_.test_dataloader):
    replace_step(loader.dataset.pipeline, 'Resize', dict(type='florence_mm.ResizeWithin'))
del loader
model = dict(
    max_patches=None,
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', num_answers=3129, width=1536)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/vilt-b-32_64xb64-200k_coco-vg-cc-sbu/iter_200000.pth',
    ),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(heads=10)))
