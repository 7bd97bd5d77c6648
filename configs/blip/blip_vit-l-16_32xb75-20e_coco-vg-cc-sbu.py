# The same with ViT-L/16, which starts from ImageNet-21k's weights, batches of 2,400 and a lower rate
_base_ = ['./blip_vit-b-16_32xb90-20e_coco-vg-cc-sbu.py']

model = dict(
    image_encoder=dict(
        arch=dict(embed_dims=1024, num_layers=24, num_heads=16),
        init_cfg=dict(checkpoint='data/timm/vit_large_patch16_224.augreg_in21k/model.safetensors'),
    ),
    heads=dict(itc=dict(alpha_steps=11667)),
)
train_dataloader = dict(batch_size=75)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=2400)
