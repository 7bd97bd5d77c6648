# The pretrained towers go on with the 9,000 training videos of MSR-VTT 1K-A. The paper has no fine-tuned figure and no
# recipe: the learning rate is that of its image-text retrieval, the rest is ours
_base_ = [
    '../_base_/models/unicl_video-coswin-h.py',
    '../_base_/datasets/msrvtt_1ka.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

load_from = 'work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth'
max_epochs = 20
optim_wrapper = dict(
    type='florence_mm.FlorenceAmpOptimWrapper',
    optimizer=dict(lr=2e-5, betas=(0.9, 0.98), eps=1e-6),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=True, begin=2, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=128)
# under --smoke clips are short and small
smoke = dict(
    image_size=64,
    train_dataloader=dict(dataset=dict(pipeline=dict(UniformSample=dict(clip_len=4)))),
    val_dataloader=dict(dataset=dict(pipeline=dict(UniformSample=dict(clip_len=4)))),
    test_dataloader=dict(dataset=dict(pipeline=dict(UniformSample=dict(clip_len=4)))),
)
