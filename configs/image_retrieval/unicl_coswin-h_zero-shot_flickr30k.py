# The same on Flickr30k: 1,000 pictures
_base_ = './unicl_coswin-h_zero-shot_coco.py'

test_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/test.jsonl', data_prefix='data/flickr30k/images'))
