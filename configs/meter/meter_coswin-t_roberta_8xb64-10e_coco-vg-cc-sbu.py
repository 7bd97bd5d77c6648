# The same pretraining in small, for one machine: CoSwin-T of UniCL's recipe, 10 epochs, batches of 512. Ours
_base_ = [
    '../_base_/models/meter_coswin-t.py',
    '../_base_/datasets/meter_pretrain.py',
    '../_base_/schedules/meter_43e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(
        init_cfg=dict(
            type='florence_mm.Pretrained',
            checkpoint='work_dirs/unicl_coswin-t_8xb512-32e_in21k-yfcc14m/epoch_32.pth',
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
train_dataloader = dict(batch_size=64)
max_epochs = 10
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='PolyLR', power=1, eta_min=0, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
# under --smoke texts of several sets are equal; two of them would have no false picture
smoke = dict(train_dataloader=dict(batch_size=8))
