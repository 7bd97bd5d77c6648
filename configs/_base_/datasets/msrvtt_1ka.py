# MSR-VTT by the 1K-A protocol: 9,000 training videos with 20 captions each, 1,000 test videos with one query each
# (python tools/dataset_converters/prepare_msrvtt.py). The paper gives neither frames nor their sampling: 16 spread over
# the whole video are ours, like the 384 pixels of the pretrained towers' last stage
image_size = 384
train_pipeline = [
    dict(type='florence_mm.VideoInit'),
    # a random frame of each sixteenth of the video
    dict(type='mmaction.UniformSample', clip_len=16),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, image_size)),
    # not flipped: captions say left and right
    dict(type='mmaction.RandomCrop', size=image_size),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='florence_mm.PackVideoText'),
]
test_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.UniformSample', clip_len=16, test_mode=True),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, image_size)),
    dict(type='mmaction.CenterCrop', crop_size=image_size),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='florence_mm.PackVideoText'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    # an epoch has each video once, with one of its captions
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/msrvtt/train.jsonl',
        data_prefix='data/msrvtt/videos',
        columns=dict(image='video'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/msrvtt/test.jsonl',
        data_prefix='data/msrvtt/videos',
        columns=dict(image='video'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# the published protocol: a query is right for its own video alone, also where two have the same words
val_evaluator = dict(type='florence_mm.ImageTextRecall', modality='video', merge_equal_texts=False)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
