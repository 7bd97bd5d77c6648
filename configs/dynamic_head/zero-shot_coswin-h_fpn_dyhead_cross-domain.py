# Zero-shot on the cross-domain sets (Florence, table 7): DETECTION_SET=pothole python tools/test.py CONFIG CHECKPOINT,
# the checkpoint being that of zero-shot_coswin-h_fpn_dyhead_128xb1-12e_flod9m
_base_ = [
    '../_base_/models/zero-shot_coswin-h_fpn_dyhead.py',
    '../_base_/datasets/cross_domain_detection.py',
    '../_base_/default_runtime.py',
]

# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
