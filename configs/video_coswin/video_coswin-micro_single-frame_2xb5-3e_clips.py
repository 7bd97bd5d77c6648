# What one frame tells of the motion, by construction at most 0.5: the same model sees a single frame, in training a
# random one and in the test the middle one
_base_ = './video_coswin-micro_2xb5-3e_clips.py'
from florence_mm.config.pick import change_step

train_pipeline = change_step(_base_.train_pipeline, 'SampleFrames', clip_len=1, frame_interval=1)
test_pipeline = change_step(_base_.test_pipeline, 'SampleFrames', clip_len=1, frame_interval=1)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
