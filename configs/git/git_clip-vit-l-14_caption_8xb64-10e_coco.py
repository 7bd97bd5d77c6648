# The same with ViT-L/14: GIT_LARGE_COCO, or fine-tuning of GIT_LARGE
_base_ = './git_clip-vit-b-16_caption_8xb64-10e_coco.py'

model = dict(
    image_encoder=dict(arch='large-14'),
    init_cfg=dict(type='florence_mm.Pretrained', checkpoint='data/git/GIT_LARGE/snapshot/model.pt'),
)
