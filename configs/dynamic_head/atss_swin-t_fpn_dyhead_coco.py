# The public Dynamic Head on Swin-T: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/atss_coswin-t_fpn_dyhead.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # the stride of the last level, as in its code
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(conv_embed=False, pad_small_map=True),
    bbox_head=dict(offset_mode='legacy'),
)
# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
# under --smoke the backbone is small
smoke = dict(
    model=dict(
        backbone=dict(arch=dict(_delete_=True, embed_dims=64, depths=[1, 1, 1, 1], num_heads=[2, 4, 8, 16])),
        neck=dict(in_channels=[128, 256, 512]),
        bbox_head=dict(num_blocks=1),
    ),
)
