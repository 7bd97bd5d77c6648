# BLIP's fine-tuning on captions: 5 epochs of 256 pairs, AdamW with decay 0.05, 1e-5 and a cosine to 0, epoch by epoch
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.05, fused=True)
)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=0, end=5)]
train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256, enable=False)
