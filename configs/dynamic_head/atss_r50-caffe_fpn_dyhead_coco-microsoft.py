# The public Dynamic Head on the ResNet-50 of Caffe: python tools/test.py CONFIG CHECKPOINT
_base_ = './atss_r50-caffe_fpn_dyhead_coco.py'

# P7 = conv(relu(P6)), as in detectron2
model = dict(neck=dict(relu_before_extra_convs=True))
