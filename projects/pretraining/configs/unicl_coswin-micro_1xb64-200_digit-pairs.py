# Florence's first stage (section 2.2) on embedded data: all texts, short ones in templates. It begins with the towers
# of the quickstart, which know single digits: from nothing, two seeds of 400 iterations ended 29 points apart
_base_ = [
    'florence_mm::_base_/models/unicl_coswin-t.py',
    './_base_/digit_pairs.py',
    'florence_mm::_base_/schedules/unicl_32e.py',
    'florence_mm::_base_/default_runtime.py',
]

model = dict(
    # three stages of maps of 8, 4 and 2 tokens a side
    image_encoder=dict(arch='micro', img_size=32, patch_size=4, out_indices=(2,), drop_path_rate=0.0),
    text_encoder=dict(arch='micro', vocab_size=4096),
    tokenizer=dict(vocab_size=4096),
    embed_dims=64,
)
load_from = 'work_dirs/quickstart/epoch_22.pth'
max_iters = 200
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='florence_mm.MuonAdamW', lr=2e-3, weight_decay=0.2, fused=True, ns_steps=4),
    paramwise_cfg=dict(orthogonal=('image_encoder', 'text_encoder')),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=2e-4, by_epoch=False, begin=20, end=max_iters),
]
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=max_iters, val_interval=max_iters)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    class_names=dict(templates='simple'),
    logger=dict(interval=20),
    checkpoint=dict(interval=max_iters, by_epoch=False, max_keep_ckpts=1),
)
