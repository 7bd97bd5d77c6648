# What one frame tells of the motion, by construction at most 0.5: the same model sees a single frame, in training a
# random one and in the test the middle one
_base_ = './video_coswin-micro_2xb5-3e_clips.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=1, frame_interval=1)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=1, frame_interval=1)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
