# Objects365 v2; the files name pictures as images/v1/patch0/..., below train and val
_base_ = ['./coco_detection.py']

train_dataloader = dict(
    dataset=dict(data_root='data/objects365v2', ann_file='zhiyuan_objv2_train.json', data_prefix=dict(img='train'))
)
val_dataloader = dict(
    dataset=dict(data_root='data/objects365v2', ann_file='zhiyuan_objv2_val.json', data_prefix=dict(img='val'))
)
test_dataloader = val_dataloader
