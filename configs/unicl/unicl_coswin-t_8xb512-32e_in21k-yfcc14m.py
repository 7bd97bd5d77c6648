# UniCL's tiny model on class-labelled and captioned images, the recipe of the public code
_base_ = [
    '../_base_/models/unicl_coswin-t.py',
    '../_base_/datasets/image_text_224.py',
    '../_base_/schedules/unicl_32e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(
    batch_size=512,
    dataset=dict(
        _delete_=True,
        type='florence_mm.WeightedMixture',
        datasets=[
            # 14.2M and 14.4M images: one pass over each is an epoch
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.ImageFolderText',
                    data_root='data/imagenet21k',
                    class_names='data/imagenet21k/class_names.json',
                    skip_bad=dict(max=1_000),
                    pipeline={{_base_.train_pipeline}},
                ),
            ),
            dict(
                weight=1,
                dataset=dict(
                    type='florence_mm.ImageTextManifest',
                    ann_file='data/yfcc14m/train.parquet',
                    skip_bad=dict(max=10_000),
                    pipeline={{_base_.train_pipeline}},
                ),
            ),
        ],
    ),
)
