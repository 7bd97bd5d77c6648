# Masked bytes as published (arXiv 2107.14795, appendix B): 512 texts of 2,048 bytes a step. The texts are a part of C4,
# a manifest that is held in memory
_base_ = ['../_base_/default_runtime.py']
model = dict(type='florence_mm.PerceiverMaskedLM')
# under --smoke all is small
smoke = dict(
    model=dict(
        encoder=dict(num_latents=8, embed_dims=32, depth=1, num_heads=4, cross_heads=4, qk_channels=16, v_channels=32),
        token_dims=32,
        max_text_len=64,
        decoder_qk_channels=16,
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.TextManifest',
        ann_file='data/c4/train.parquet',
        pipeline=[dict(type='florence_mm.PackImageText')],
    ),
)
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='mmpretrain.Lamb', lr=1.25e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
max_iters = 500000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=1000, end=max_iters),
]
train_cfg = dict(type='florence_mm.IterTrainLoop', max_iters=max_iters)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
