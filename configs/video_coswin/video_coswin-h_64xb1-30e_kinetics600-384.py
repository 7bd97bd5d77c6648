# Florence on Kinetics-600 (section 3.9), as on Kinetics-400
_base_ = './video_coswin-h_64xb1-30e_kinetics400-384.py'

model = dict(cls_head=dict(num_classes=600))
train_dataloader = dict(dataset=dict(data_root='data/kinetics600', ann_file='kinetics600_train_list_videos.txt'))
val_dataloader = dict(dataset=dict(data_root='data/kinetics600', ann_file='kinetics600_val_list_videos.txt'))
test_dataloader = dict(dataset=dict(data_root='data/kinetics600', ann_file='kinetics600_val_list_videos.txt'))
