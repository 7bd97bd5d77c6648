# GIT with CLIP's ViT-L/14: the public GIT-large
_base_ = './git_clip-vit-b-16.py'

model = dict(image_encoder=dict(arch='large-14'))
