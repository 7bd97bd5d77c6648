# BLIP-2's second stage with OPT-2.7B (section 3.3): texts in batches of 1,920, each followed by a line break. OPT's folder
# is that of `facebook/opt-2.7b` on the Hugging Face hub
_base_ = [
    '../_base_/models/blip2_vit-g-14_opt-2.7b.py',
    '../_base_/datasets/blip_pretrain.py',
    '../_base_/schedules/blip2_80k.py',
    '../_base_/default_runtime.py',
]

model = dict(
    heads=dict(caption=dict(type='florence_mm.FusionCaptionHead', num_beams=5, max_length=30)),
    max_text_len=34,
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/blip2_vit-g-14_16xb105-250k_coco-vg-cc-sbu/iter_250000.pth',
        allow_missing=['image_encoder', 'language_model', 'language_projection'],
    ),
)
train_dataloader = dict(batch_size=120)
auto_scale_lr = dict(base_batch_size=1920, enable=False)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
