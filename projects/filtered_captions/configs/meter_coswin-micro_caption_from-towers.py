# METER's captions without its pretraining, from the two towers alone: a new model for compare.py
_base_ = 'florence_mm::meter/meter_coswin-micro_caption_2xb16-4e_large-digits.py'
towers = 'work_dirs/unicl_coswin-micro_2xb32-5e_large-digits/epoch_5.pth'
model = dict(
    image_encoder=dict(
        init_cfg=dict(_delete_=True, type='florence_mm.Pretrained', checkpoint=towers, prefix='image_encoder.')
    ),
    text_encoder=dict(
        tower=dict(
            init_cfg=dict(_delete_=True, type='florence_mm.Pretrained', checkpoint=towers, prefix='text_encoder.')
        )
    ),
    heads=dict(caption=dict(num_beams=1)),
    init_cfg=None,
)
val_dataloader = val_evaluator = val_cfg = None
