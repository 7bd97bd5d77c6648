# Kinetics-400 at 384 pixels with RandAugment (Florence, section 3.9). Its strength, the frames and the sizes before the
# crops are ours
_base_ = './kinetics400.py'
from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import insert_after

set_image_size(_base_, 384)
train_pipeline = insert_after(
    _base_.train_pipeline,
    'Flip',
    # the same for all frames of a clip
    dict(type='mmaction.TorchVisionWrapper', op='RandAugment', num_ops=2, magnitude=9),
)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1)
