# Florence on VQAv2 (section 3.7): learning rate 8e-6, 10 epochs, an MLP trained with binary cross-entropy, a thousand
# validation pictures held out. Not stated: the resolution and the batch, which are METER's. As Swin does it, windows
# grow with the picture, from 12 to 18 tokens, so that the map of each stage divides
_base_ = [
    '../_base_/models/meter_coswin-h.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/schedules/meter_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(img_size=576, window_size=18),
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', num_answers=3129)),
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/meter_coswin-h_roberta_128xb32-43e_coco-vg-cc-sbu/epoch_43.pth',
    ),
)
optim_wrapper = dict(optimizer=dict(lr=8e-6), paramwise_cfg=dict(lr_mult=dict(heads=50)))
