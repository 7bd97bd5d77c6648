# Zero-shot ImageNet with CLIP's ResNet-50: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/clip_vit-b-32.py',
    '../_base_/datasets/imagenet_zero_shot.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(_delete_=True, type='florence_mm.CLIPResNet', arch='resnet50'),
    # the tower has its own, with a bias
    image_projection=False,
    embed_dims=1024,
)
# under --smoke all is small: the first _delete_ drops what the base says of its ViT, the second the name of the arch
smoke = dict(
    model=dict(
        image_encoder=dict(
            _delete_=True,
            arch=dict(_delete_=True, depths=[1, 1, 1, 1], width=8, out_dims=32),
        ),
        embed_dims=32,
    ),
)
