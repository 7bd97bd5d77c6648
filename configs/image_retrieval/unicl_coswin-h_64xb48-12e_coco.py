# Florence's fine-tuned retrieval on COCO (section 3.5): batches of 3,072, 12 epochs, 200 steps of warm-up, learning
# rate 2e-5. Not stated: the resolution (384 is that of the pretraining's last stage), decay, clipping, augmentation
_base_ = [
    '../_base_/models/unicl_coswin-h.py',
    '../_base_/datasets/retrieval_coco.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/parallel/fsdp2.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth'
model = dict(image_encoder=dict(img_size=384, window_size=12, with_cp=True))
train_dataloader = dict(batch_size=48)
max_epochs = 12
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    optimizer=dict(lr=2e-5, betas=(0.9, 0.98), eps=1e-6),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=3072)
# captions have no classes
default_hooks = dict(class_names=None)
