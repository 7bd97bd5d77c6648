# GIT-base on 4 million pictures: captions alone, 2 epochs at 160 to 224 pixels in turns, CLIP's image encoder at the
# start
_base_ = [
    '../_base_/models/git_clip-vit-b-16.py',
    '../_base_/datasets/git_pretrain.py',
    '../_base_/schedules/git_2e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/clip/ViT-B-16.pt', prefix='image_encoder.')
    )
)
custom_hooks = [dict(type='florence_mm.ImageSizesHook', sizes=[160, 176, 192, 208, 224])]
