# Which clip shows a seven? The quickstart's towers, which saw pictures of digits alone:
# python tools/test.py CONFIG work_dirs/unicl_coswin-micro_1xb64-36e_digits/epoch_36.pth
_base_ = [
    '../_base_/models/unicl_video-coswin-micro.py',
    '../_base_/datasets/clips_text.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.pick import insert_after

# the middle, of the size that the towers know: chosen by the training clips (docs/reports/clips.md)
test_pipeline = insert_after(_base_.test_pipeline, 'VideoDecode', dict(type='mmaction.CenterCrop', crop_size=32))
# the query is the digit's name, and each clip that shows the digit is right
test_dataloader = dict(dataset=dict(columns=dict(text='digit'), pipeline=test_pipeline))
# nothing is trained
train_dataloader = val_dataloader = val_evaluator = None
test_cfg = dict()
