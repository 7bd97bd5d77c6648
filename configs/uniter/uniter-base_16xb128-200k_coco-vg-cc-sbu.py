# UNITER's pretraining on regions of COCO, Visual Genome, Conceptual Captions and SBU that florence-mm regions writes
_base_ = [
    '../_base_/models/uniter-base.py',
    '../_base_/datasets/meter_pretrain.py',
    '../_base_/schedules/vilt_200k.py',
    '../_base_/default_runtime.py',
]
from posixpath import dirname

model = dict(
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1),
        mlm=dict(type='florence_mm.FusionMLMHead', at_least_one=True, tied=True),
        mrfr=dict(type='florence_mm.FusionMRFRHead'),
        mrc=dict(type='florence_mm.FusionMRCHead', num_classes=1600),
    ),
)
# the regions of a folder of pictures are in the folder of that name in data/regions
for part in _base_.train_dataloader.dataset.datasets:
    prefix = part.dataset.get('data_prefix') or dirname(part.dataset.ann_file)
    folder = prefix.replace('data/', 'data/regions/', 1)
    part.dataset.pipeline = [
        dict(type='florence_mm.LoadRegions', folder=folder, images=prefix),
        dict(type='florence_mm.PackImageText'),
    ]
del part, prefix, folder, dirname
train_dataloader = dict(
    batch_size=128,
    sampler=dict(infinite=True),
    dataset=dict(_delete_=True, type='florence_mm.WithFalseSamples', dataset=_base_.train_dataloader.dataset),
)
# a step trains one of four tasks, so that heads without gradient are in each
find_unused_parameters = True
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=2048)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
