# BLIP's pretraining (section 4.1): contrast with a momentum model and a queue of 57,600, matching, captions; ViT-B/16,
# batches of 2,880 at 224 pixels, 20 epochs of 14 million pictures. The image encoder starts from DeiT, the text model
# and the head of captions from BERT, cross-attention from random weights
_base_ = [
    '../_base_/models/blip_vit-b-16.py',
    '../_base_/datasets/blip_pretrain.py',
    '../_base_/schedules/blip_20e.py',
    '../_base_/default_runtime.py',
]

_bert = dict(type='florence_mm.Pretrained', checkpoint='data/bert-base-uncased/model.safetensors')
model = dict(
    image_encoder=dict(
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/deit/deit_base_patch16_224-b5f2ef4d.pth')
    ),
    text=dict(init_cfg=dict(prefix='text_encoder.', **_bert)),
    heads=dict(
        itc=dict(
            type='florence_mm.FusionITCHead',
            positives='own_text',
            momentum=0.995,
            queue_size=57600,
            alpha_steps=9722,  # of two epochs of 14 million pairs
        ),
        itm=dict(type='florence_mm.FusionITMHead', negatives='own'),
        caption=dict(
            type='florence_mm.FusionCaptionHead',
            tied=True,
            label_smoothing=0.1,
            init_cfg=dict(prefix='heads.caption.', **_bert),
        ),
    ),
)
train_dataloader = dict(batch_size=90)
# under --smoke texts of several sets are equal; two of them would have no negative
smoke = dict(train_dataloader=dict(batch_size=8), model=dict(heads=dict(itc=dict(queue_size=16))))
