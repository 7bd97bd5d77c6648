# Florence's fusion pretraining (section 2.5): image-text matching and masked language modelling on 14 million pictures
# with 20 million captions, 43 epochs at 384 pixels. Not stated: rates, decay, warm-up and batch, which are METER's
_base_ = [
    '../_base_/models/meter_coswin-h.py',
    '../_base_/datasets/meter_pretrain.py',
    '../_base_/schedules/meter_43e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-h_512xb48-80k_fld900m-384/iter_80000.pth',
            prefix='image_encoder.',
        )
    ),
    text_encoder=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained', checkpoint='data/roberta-base/model.safetensors', prefix='text_encoder.'
        )
    ),
    heads=dict(
        itm=dict(type='florence_mm.FusionITMHead'),
        mlm=dict(type='florence_mm.FusionMLMHead', vocab_size=50265),
    ),
)
# under --smoke texts of several sets are equal; two of them would have no false picture
smoke = dict(train_dataloader=dict(batch_size=8))
