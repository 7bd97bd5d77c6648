# Zero-shot retrieval on COCO (Florence, table 5): python tools/test.py CONFIG CHECKPOINT, the checkpoint being that of
# unicl_coswin-h_512xb48-80k_fld900m-384
_base_ = [
    '../_base_/models/unicl_coswin-h.py',
    '../_base_/datasets/retrieval_coco.py',
    '../_base_/default_runtime.py',
]

model = dict(image_encoder=dict(img_size=384, window_size=12))
# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
smoke = dict(optim_wrapper=None)
