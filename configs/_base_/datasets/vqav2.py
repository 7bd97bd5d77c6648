# VQAv2 as published, with the 3,129 answers of tools/dataset_converters/build_answers.py: trained on training and
# validation questions without those of the last thousand pictures, as in METER. The test is that of the server: the
# questions of 2015 (test-dev is a part of them), whose answers are written to a file
image_size = 576
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(image_size, image_size)),
    dict(type='florence_mm.PackVQA'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='mmengine.ConcatDataset',
        datasets=[
            dict(
                type='florence_mm.VQADataset',
                question_file='data/vqav2/v2_OpenEnded_mscoco_train2014_questions.json',
                ann_file='data/vqav2/v2_mscoco_train2014_annotations.json',
                answer_file='data/vqav2/answers.txt',
                data_prefix='data/coco/train2014',
                img_pattern='COCO_train2014_{:012d}.jpg',
                drop_unknown=True,
                pipeline=train_pipeline,
            ),
            dict(
                type='florence_mm.VQADataset',
                question_file='data/vqav2/v2_OpenEnded_mscoco_val2014_questions.json',
                ann_file='data/vqav2/v2_mscoco_val2014_annotations.json',
                answer_file='data/vqav2/answers.txt',
                data_prefix='data/coco/val2014',
                img_pattern='COCO_val2014_{:012d}.jpg',
                image_slice=(None, -1000),
                drop_unknown=True,
                pipeline=train_pipeline,
            ),
        ],
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VQADataset',
        question_file='data/vqav2/v2_OpenEnded_mscoco_val2014_questions.json',
        ann_file='data/vqav2/v2_mscoco_val2014_annotations.json',
        answer_file='data/vqav2/answers.txt',
        data_prefix='data/coco/val2014',
        img_pattern='COCO_val2014_{:012d}.jpg',
        image_slice=(-1000, None),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.VQAAccuracy')
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VQADataset',
        question_file='data/vqav2/v2_OpenEnded_mscoco_test2015_questions.json',
        answer_file='data/vqav2/answers.txt',
        data_prefix='data/coco/test2015',
        img_pattern='COCO_test2015_{:012d}.jpg',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='florence_mm.VQAAccuracy', outfile='work_dirs/vqav2_test2015_results.json')
