# Florence's fusion pretraining (section 2.5), the pairs of the web from shards and mixed with the labelled captions
_base_ = './meter_coswin-h_roberta_128xb32-43e_coco-vg-cc-sbu.py'


def from_shards(dataset):
    if not dataset['ann_file'].endswith('/train.parquet'):
        return dataset
    folder = dataset['ann_file'].removesuffix('/train.parquet')
    return dict(type='florence_mm.ImageTextShards', data_root=f'{folder}/shards', pipeline=dataset['pipeline'])


train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(weight=entry['weight'], dataset=from_shards(entry['dataset']))
            for entry in _base_.train_dataloader.dataset.datasets
        ]
    )
)
