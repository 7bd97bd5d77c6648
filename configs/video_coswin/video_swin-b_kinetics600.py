# The same on Kinetics-600
_base_ = './video_swin-b_kinetics400.py'

model = dict(cls_head=dict(num_classes=600))
test_dataloader = dict(dataset=dict(data_root='data/kinetics600', ann_file='kinetics600_val_list_videos.txt'))
