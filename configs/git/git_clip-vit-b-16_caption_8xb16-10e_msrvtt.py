# Captions of MSR-VTT's videos by six frames: GIT_BASE_MSRVTT. Videos are those of the 1K-A protocol; published figures
# are of the split of 2,990 test videos
_base_ = [
    '../_base_/models/git_clip-vit-b-16.py',
    '../_base_/datasets/msrvtt_1ka.py',
    '../_base_/schedules/git_10e.py',
    '../_base_/default_runtime.py',
]
from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import change_step

set_image_size(_base_, 224)
model = dict(
    num_frames=6,
    init_cfg=dict(
        type='florence_mm.Pretrained',
        checkpoint='work_dirs/git_clip-vit-b-16_64xb64-2e_coco-vg-cc3m-sbu/epoch_2.pth',
    ),
)
train_pipeline = change_step(_base_.train_pipeline, 'UniformSample', clip_len=6)
test_pipeline = change_step(_base_.test_pipeline, 'UniformSample', clip_len=6)
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(_delete_=True, type='florence_mm.CaptionScores')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
