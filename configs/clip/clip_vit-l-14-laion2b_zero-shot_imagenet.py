# The same with LAION-2B's ViT-L/14, which was trained with pixels from -1 to 1: python tools/test.py CONFIG CHECKPOINT
_base_ = './clip_vit-l-14-gelu_zero-shot_imagenet.py'

model = dict(data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))
