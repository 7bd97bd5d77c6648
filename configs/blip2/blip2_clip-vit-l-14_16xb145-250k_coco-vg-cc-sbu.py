# The same with CLIP's ViT-L/14, in batches of 2,320
_base_ = ['./blip2_vit-g-14_16xb105-250k_coco-vg-cc-sbu.py']
model = dict(
    image_encoder=dict(
        arch=dict(_delete_=True, embed_dims=1024, num_layers=23, num_heads=16, patch_size=14),
        act='quick_gelu',
        norm_eps=1e-5,
        pre_norm=True,
        patch_bias=False,
        init_cfg=dict(checkpoint='data/clip/ViT-L-14.pt', prefix='image_encoder.'),
    )
)
train_dataloader = dict(batch_size=145)
auto_scale_lr = dict(base_batch_size=2320)
