# Kinetics-400 at 384 pixels with RandAugment (Florence, section 3.9). Its strength, the frames and the sizes before the
# crops are ours
_base_ = './kinetics400.py'

train_pipeline = _base_.train_pipeline
train_pipeline[3].update(scale=(-1, 438))
train_pipeline[5].update(scale=(384, 384))
# the same for all frames of a clip
train_pipeline.insert(7, dict(type='mmaction.TorchVisionWrapper', op='RandAugment', num_ops=2, magnitude=9))
val_pipeline = _base_.val_pipeline
val_pipeline[3].update(scale=(-1, 438))
val_pipeline[4].update(crop_size=384)
test_pipeline = _base_.test_pipeline
test_pipeline[3].update(scale=(-1, 384))
test_pipeline[4].update(crop_size=384)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
