# The same on Flickr30k: 29,000 pictures for training, 1,014 and 1,000
_base_ = './unicl_coswin-h_64xb48-12e_coco.py'

train_dataloader = dict(
    dataset=dict(ann_file='data/flickr30k/karpathy/train.jsonl', data_prefix='data/flickr30k/images')
)
val_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/val.jsonl', data_prefix='data/flickr30k/images'))
test_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/test.jsonl', data_prefix='data/flickr30k/images'))
