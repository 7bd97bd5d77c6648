# Video Swin-T, 4 clips of 3 crops: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/video_coswin-t.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(conv_embed=False))
# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
# a base has the smoke settings of all three loaders
smoke = dict(
    _delete_=True,
    image_size=64,
    test_dataloader=dict(dataset=dict(pipeline=dict(SampleFrames=dict(clip_len=4)))),
    model=dict(
        backbone=dict(arch=dict(_delete_=True, embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])),
        cls_head=dict(in_channels=256),
    ),
)
