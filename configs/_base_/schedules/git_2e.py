# GIT's pretraining (arXiv 2205.14100, section 4.1): 2 epochs of batches of 4,096, 5e-5 for the layers behind the image
# encoder and a fifth of it for the encoder, 500 steps of warm-up, then a cosine to zero
max_epochs = 2
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    constructor='florence_mm.NoDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=True),
    paramwise_cfg=dict(lr_mult=dict(image_encoder=0.2)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=4096, enable=False)
