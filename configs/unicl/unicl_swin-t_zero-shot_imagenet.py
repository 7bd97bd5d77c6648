# Zero-shot ImageNet with UniCL's Swin-T, preprocessed as in its code: python tools/test.py CONFIG CHECKPOINT
_base_ = [
    '../_base_/models/unicl_swin-t.py',
    '../_base_/datasets/image_text_224.py',
    '../_base_/default_runtime.py',
]

# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
