# FLOD-9M (Florence, section 2.4): COCO, LVIS, Open Images, Objects365 and ImageNet-22K with pseudo boxes, as one file
# of tools/dataset_converters/merge_detection.py. Boxes are validated on pictures left out of it, all classes as one:
# the precision of each of 25,190 classes would say little and need gigabytes
_base_ = ['./coco_detection.py']

train_dataloader = dict(dataset=dict(data_root='data/flod9m', ann_file='train.json', data_prefix=dict(img='images')))
val_dataloader = dict(dataset=dict(data_root='data/flod9m', ann_file='val.json', data_prefix=dict(img='images')))
val_evaluator = dict(class_agnostic=True)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
