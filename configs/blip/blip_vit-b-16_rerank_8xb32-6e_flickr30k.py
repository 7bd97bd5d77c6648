# The same on Flickr30k, with negatives of the own process and 128 candidates
_base_ = './blip_vit-b-16_rerank_8xb32-6e_coco.py'

model = dict(
    matcher=dict(
        heads=dict(
            itc=dict(alpha_steps=1133),  # of two epochs of 145,000 captions
            itm=dict(negatives='own'),
        )
    )
)
train_dataloader = dict(
    dataset=dict(ann_file='data/flickr30k/karpathy/train.jsonl', data_prefix='data/flickr30k/images')
)
val_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/val.jsonl', data_prefix='data/flickr30k/images'))
test_dataloader = dict(dataset=dict(ann_file='data/flickr30k/karpathy/test.jsonl', data_prefix='data/flickr30k/images'))
test_cfg = dict(top_k=128)
