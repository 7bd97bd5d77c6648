# The public tasks that a generalist is tuned on, as published files, each with a weight; annotations lie where their
# authors' archives put them. Some boxes of these files lie outside their pictures or are empty. Weights are ours
_base_ = './coco_tasks.py'
pipeline = {{_base_.pipeline}}
coco = dict(
    type='florence_mm.CocoTasks',
    data_root='data/coco',
    data_prefix='train2017',
    skip_bad=dict(max=100),
    pipeline=pipeline,
)
refcoco = dict(
    type='florence_mm.RefCocoTasks',
    data_root='data/refcoco/refcoco',
    ref_file='refs(unc).p',
    ann_file='instances.json',
    data_prefix='../../coco/train2014',
    pipeline=pipeline,
)
flickr30k = dict(
    type='florence_mm.Flickr30kEntitiesTasks',
    data_root='data/flickr30k_entities',
    data_prefix='images',
    skip_bad=dict(max=100),
    pipeline=pipeline,
)
visual_genome = dict(
    type='florence_mm.VisualGenomeTasks',
    data_root='data/visual_genome',
    ann_file='region_descriptions.json',
    data_prefix='',
    skip_bad=dict(max=0.05),
    pipeline=pipeline,
)
scene_text = dict(
    type='florence_mm.SceneTextTasks',
    task='ocr_with_region',
    data_root='data/textocr',
    ann_file='TextOCR_0.1_train.json',
    folders=dict(train='train_images'),
    skip_bad=dict(max=0.05),
    pipeline=pipeline,
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='florence_mm.WeightedMixture',
        epoch_size=1_000_000,
        datasets=[
            dict(weight=4, dataset=dict(**coco, task='caption', ann_file='annotations/captions_train2017.json')),
            dict(weight=4, dataset=dict(**coco, task='detection', ann_file='annotations/instances_train2017.json')),
            dict(weight=2, dataset=dict(**refcoco, task='phrase_grounding', split='train')),
            dict(weight=2, dataset=dict(**refcoco, task='referring_segmentation', split='train', tolerance=0.002)),
            dict(weight=2, dataset=dict(**flickr30k, task='phrase_grounding', ann_file='train.txt')),
            dict(weight=1, dataset=dict(**visual_genome, task='dense_region_caption')),
            dict(weight=1, dataset=dict(**visual_genome, task='region_description')),
            dict(weight=1, dataset=dict(**scene_text)),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmengine.ConcatDataset',
        datasets=[
            dict(**refcoco, task='phrase_grounding', split='val', test_mode=True),
            dict(**refcoco, task='referring_segmentation', split='val', test_mode=True),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='florence_mm.ReferringAccuracy'),
    dict(type='florence_mm.PolygonIoU'),
]
test_evaluator = val_evaluator
