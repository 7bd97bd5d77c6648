# The eleven sets of Florence's table 7, one at a time: DETECTION_SET=pothole python tools/test.py CONFIG CHECKPOINT.
# Class names are the annotation file's: aquarium, bccd, chess_pieces, mask_wearing, oxford_pets, packages, pistols,
# pklot, pothole, thermal, wildfire_smoke, or any folder of this layout
_base_ = ['./coco_detection.py']

data_root = 'data/cross_domain/{{$DETECTION_SET:aquarium}}'
train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='train/_annotations.coco.json', data_prefix=dict(img='train'))
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='valid/_annotations.coco.json', data_prefix=dict(img='valid'))
)
test_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file='test/_annotations.coco.json', data_prefix=dict(img='test'))
)
