# Questions of VQAv2 on regions that florence-mm regions writes
_base_ = [
    '../_base_/models/uniter-base.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/vilt_10e.py',
    '../_base_/default_runtime.py',
]


def regions(split):
    return [dict(type='florence_mm.LoadRegions', folder=f'data/regions/{split}'), dict(type='florence_mm.PackVQA')]


for part, split in zip(_base_.train_dataloader.dataset.datasets, ('train2014', 'val2014'), strict=True):
    part.pipeline = regions(split)
del part, split
_base_.val_dataloader.dataset.pipeline = regions('val2014')
_base_.test_dataloader.dataset.pipeline = regions('test2015')
del regions
model = dict(
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', num_answers=3129, width=1536, act_first=True)),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=8e-5), paramwise_cfg=dict(lr_mult=dict(heads=10)))
auto_scale_lr = dict(base_batch_size=1024)
# no region is hidden, so that the vector of hidden ones gets no gradient
find_unused_parameters = True
