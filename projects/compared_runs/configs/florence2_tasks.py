# What kinds of annotation do for each other in Florence-2, with as many updates: the paper's stages (image level, then
# regions, then pixels), and tasks alone
CONFIG = 'configs/florence2/florence2_coswin-micro_2xb16-5k_large-digit-tasks.py'
_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='florence_mm.PackTask', format=dict(num_bins=32)),
]
_regions = ('caption', 'detection', 'region_category', 'phrase_grounding', 'referring', 'ocr_with_region')


def _way(*files, **options):
    datasets = [
        dict(
            type='florence_mm.TaskManifest',
            ann_file=f'data/large_digit_coarse_tasks/train_{name}.jsonl',
            data_prefix='data/outlined_large_digits/train',
            pipeline=_pipeline,
        )
        for name in files
    ]
    return dict(config=CONFIG, options={'train_dataloader.dataset.datasets': datasets, **options})


title = "Florence-2's tasks about the embedded scenes"
metrics = {
    'caption/CIDEr-D': 'CIDEr-D',
    'written/found': 'boxes found',
    'written/F1': 'detection F1',
    'answer/accuracy': 'region to digit',
    'grounding/R@1': 'phrase grounding',
    'segmentation/mIoU': 'polygon mIoU',
}
ways = {
    'image level': _way('caption'),
    'image level + region': _way(*_regions),
    'image level + region + pixel': dict(config=CONFIG),
    'detection alone': _way('detection'),
    'region to digit alone': _way('region_category'),
    'phrases alone': _way('phrase_grounding', 'referring'),
    'outlines alone': _way('referring_segmentation'),
}
