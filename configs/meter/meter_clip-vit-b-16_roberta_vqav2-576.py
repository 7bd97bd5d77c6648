# METER's release for VQAv2: python tools/test.py CONFIG CHECKPOINT. Its answers are in the order in which METER's code
# meets them: make data/vqav2/answers_by_appearance.txt with build_answers.py --order appearance
_base_ = [
    '../_base_/models/meter_clip-vit-b-16.py',
    '../_base_/datasets/vqav2.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image_encoder=dict(img_size=576),
    heads=dict(vqa=dict(type='florence_mm.FusionVQAHead', num_answers=3129)),
)
# the shorter side to the resolution, and a centre crop, as in METER's clip_transform
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=576, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=576),
    dict(type='florence_mm.PackVQA'),
]
test_dataloader = dict(dataset=dict(answer_file='data/vqav2/answers_by_appearance.txt', pipeline=test_pipeline))
# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
smoke = dict(optim_wrapper=None)
