# ViLT's pretraining: 200,000 steps of 4,096 pairs of COCO, Visual Genome, Conceptual Captions and SBU
_base_ = [
    '../_base_/models/vilt-b-32.py',
    '../_base_/datasets/meter_pretrain.py',
    '../_base_/schedules/vilt_200k.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import replace_step

model = dict(
    max_patches=200,
    vit_init=dict(
        type='florence_mm.Pretrained',
        checkpoint='data/timm/vit_base_patch32_384.augreg_in21k_ft_in1k/model.safetensors',
    ),
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead', negatives='data_set', alignment=0.1),
        mlm=dict(type='florence_mm.FusionMLMHead', whole_word=True),
    ),
)
for part in _base_.train_dataloader.dataset.datasets:
    replace_step(part.dataset.pipeline, 'Resize', dict(type='florence_mm.ResizeWithin'))
del part
train_dataloader = dict(
    batch_size=64,
    sampler=dict(infinite=True),
    dataset=dict(_delete_=True, type='florence_mm.WithFalseSamples', dataset=_base_.train_dataloader.dataset),
)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
