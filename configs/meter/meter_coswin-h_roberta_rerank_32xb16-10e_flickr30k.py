# The same on Flickr30k
_base_ = './meter_coswin-h_roberta_rerank_32xb16-10e_coco.py'

train_dataloader = dict(
    dataset=dict(ann_file='data/flickr30k/karpathy/train.jsonl', data_prefix='data/flickr30k/images')
)
test_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/test.jsonl', data_prefix='data/flickr30k/images'))
