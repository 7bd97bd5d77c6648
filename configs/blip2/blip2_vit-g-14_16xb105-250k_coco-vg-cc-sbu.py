# BLIP-2's first stage (section 3.2): contrast, matching and captions in batches of 1,680. The image encoder is EVA's and
# frozen; the Q-Former starts from BERT, and its queries' MLPs from BERT's
_base_ = [
    '../_base_/models/blip2_vit-g-14.py',
    '../_base_/datasets/blip_pretrain.py',
    '../_base_/schedules/blip2_250k.py',
    '../_base_/default_runtime.py',
]

_bert = dict(type='florence_mm.Pretrained', checkpoint='data/bert-base-uncased/model.safetensors')
model = dict(
    text=dict(init_cfg=dict(prefix='text_encoder.', **_bert)),
    heads=dict(
        itc=dict(type='florence_mm.FusionITCHead', positives='own_text', label_smoothing=0.1),
        itm=dict(type='florence_mm.FusionITMHead', negatives='all'),
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            tied=True,
            label_smoothing=0.1,
            init_cfg=dict(prefix='heads.caption.', **_bert),
        ),
    ),
)
train_dataloader = dict(batch_size=105)
auto_scale_lr = dict(base_batch_size=1680, enable=False)
default_hooks = dict(checkpoint=dict(interval=5_000, by_epoch=False))
log_processor = dict(by_epoch=False)
# under --smoke texts of several sets are equal; two of them would have no negative
smoke = dict(train_dataloader=dict(batch_size=8))
