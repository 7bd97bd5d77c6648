# The quickstart's towers by AdamW alone; the embedded detection and video models begin with them:
# python tools/quickstart.py --config configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py \
#     --work-dir work_dirs/unicl_coswin-micro_1xb64-36e_digits
_base_ = [
    '../_base_/models/unicl_coswin-t.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # a digit has 8x8 pixels, drawn four times as large: one token a pixel
    image_encoder=dict(arch='micro', img_size=32, patch_size=4, out_indices=(2,), drop_path_rate=0.0),
    # the captions need few words; AdamW then has less to update in each step
    text_encoder=dict(arch='micro', vocab_size=4096),
    tokenizer=dict(vocab_size=4096),
    embed_dims=64,
)
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.2))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=2, end=36, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=36, val_interval=6)
default_hooks = dict(class_names=dict(templates='simple'), logger=dict(interval=21), checkpoint=dict(interval=6))
auto_scale_lr = dict(base_batch_size=64)
