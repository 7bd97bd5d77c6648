# Captions of COCO for two towers, with the Karpathy splits (tools/dataset_converters/prepare_karpathy.py), at the 384
# pixels of the pretraining's last stage, with its test pipeline. Pictures are not flipped: captions say left and right
_base_ = './image_text_224.py'
from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import remove_step

set_image_size(_base_, 384)
train_pipeline = remove_step(remove_step(_base_.train_pipeline, 'RandomFlip'), 'RandomPrompt')
train_dataloader = dict(
    dataset=dict(
        ann_file='data/coco/karpathy/train.jsonl', data_prefix='data/coco', skip_bad=None, pipeline=train_pipeline
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextManifest',
        ann_file='data/coco/karpathy/val.jsonl',
        data_prefix='data/coco',
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
# the published protocol: a caption is right for its own picture alone, also where two have the same words
val_evaluator = dict(_delete_=True, type='florence_mm.ImageTextRecall', merge_equal_texts=False)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.ImageTextManifest',
        ann_file='data/coco/karpathy/test.jsonl',
        data_prefix='data/coco',
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = val_evaluator
