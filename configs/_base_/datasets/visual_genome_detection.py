# Visual Genome in COCO's format, with the classes your file has; AP50 is what papers report
_base_ = ['./coco_detection.py']

train_dataloader = dict(
    dataset=dict(data_root='data/visual_genome', ann_file='annotations/train.json', data_prefix=dict(img='images'))
)
val_dataloader = dict(
    dataset=dict(data_root='data/visual_genome', ann_file='annotations/val.json', data_prefix=dict(img='images'))
)
test_dataloader = val_dataloader
