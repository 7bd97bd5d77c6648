# What kinds of annotation do for each other in Florence-2, with as many updates: the paper's stages (image level, then
# regions, then pixels) as they are and as a start for all tasks, and tasks alone
CONFIG = 'configs/florence2/florence2_coswin-micro_2xb16-5k_large-digit-tasks.py'
_pipeline = [
    dict(type='florence_mm.LoadImage', keep_mb=256),
    dict(type='florence_mm.PackTask', format=dict(num_bins=32)),
]
_regions = ('caption', 'detection', 'region_category', 'phrase_grounding', 'referring', 'ocr_with_region')
_all = (*_regions, 'referring_segmentation')


def _way(*files, updates=1200, begins_with=None):
    options = {
        'train_dataloader.dataset.datasets': [
            dict(
                type='florence_mm.TaskManifest',
                ann_file=f'data/large_digit_tasks/train_{name}.jsonl',
                data_prefix='data/outlined_large_digits/train',
                pipeline=_pipeline,
            )
            for name in files
        ],
        'train_cfg.max_iters': updates,
        'train_cfg.val_interval': updates + 1,  # the test alone
        'param_scheduler.PolyLR.end': updates,
        'default_hooks.checkpoint.interval': updates,
        'test_cfg.controls': [],
    }
    if begins_with:
        options['load_from'] = f'work_dirs/florence2_tasks/{begins_with}/seed{{seed}}/iter_1200.pth'
    return dict(config=CONFIG, options=options)


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
    'image level + region + pixel': _way(*_all),
    'detection alone': _way('detection'),
    'region to digit alone': _way('region_category'),
    'phrases alone': _way('phrase_grounding', 'referring'),
    'outlines alone': _way('referring_segmentation'),
    # 400 updates of all tasks, from the tower alone and from each stage
    'all tasks, from the tower': _way(*_all, updates=400),
    'all tasks, from image level': _way(*_all, updates=400, begins_with='image_level'),
    'all tasks, from image level + region': _way(*_all, updates=400, begins_with='image_level_region'),
    'all tasks, from all stages': _way(*_all, updates=400, begins_with='image_level_region_pixel'),
}
