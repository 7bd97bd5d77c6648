# Flickr30k with the Karpathy splits (tools/dataset_converters/prepare_karpathy.py): 29,000 pictures, 1,014 and 1,000
_base_ = ['./karpathy_coco.py']

train_dataloader = dict(
    dataset=dict(ann_file='data/flickr30k/karpathy/train.jsonl', data_prefix='data/flickr30k/images')
)
val_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/val.jsonl', data_prefix='data/flickr30k/images'))
test_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/test.jsonl', data_prefix='data/flickr30k/images'))
