"""A small Dynamic Head, and a small zero-shot detector with it."""

from instances import Small
from small_coswin import COSWIN
from small_unicl import UNICL
from whole_kinds import DenseHead, Detector


def head(num_classes, strides, channels=16):
    """One anchor of four strides at the middle of each position."""
    anchors = {'type': 'mmdet.AnchorGenerator', 'ratios': [1.0], 'octave_base_scale': 4, 'scales_per_octave': 1}
    return {
        'type': 'florence_mm.DynamicHead',
        'num_classes': num_classes,
        'in_channels': 16,
        'feat_channels': channels,
        'num_blocks': 2,
        'anchor_generator': {**anchors, 'strides': strides, 'center_offset': 0.5},
    }


ASSIGNER = {'type': 'mmdet.ATSSAssigner', 'topk': 9, 'iou_calculator': {'type': 'mmdet.BboxOverlaps2D'}}
TRAIN = {'assigner': ASSIGNER, 'allowed_border': -1, 'pos_weight': -1}
TEST = {'nms_pre': 100, 'min_bbox_size': 0, 'score_thr': 0.0, 'nms': {'type': 'nms', 'iou_threshold': 0.6}}
DYNAMIC = {**head(2, [8, 16, 32]), 'type': 'DynamicHead', 'train_cfg': TRAIN}
DETECTOR = {
    'type': 'mmdet.ATSS',
    'data_preprocessor': {
        'type': 'mmdet.DetDataPreprocessor',
        'mean': [123.675, 116.28, 103.53],
        'std': [58.395, 57.12, 57.375],
    },
    'backbone': {**COSWIN, 'type': 'florence_mm.CoSwin'},
    'neck': {'type': 'mmdet.FPN', 'in_channels': [8, 16, 32], 'out_channels': 16, 'num_outs': 3},
    'bbox_head': head(1, [2, 4, 8], 32),
    'train_cfg': TRAIN,
    'test_cfg': {**TEST, 'max_per_img': 3},
}

ZERO_SHOT = {'type': 'ZeroShotDetector', 'detector': DETECTOR, 'classifier': UNICL, 'crop_size': 32}
SHARED = {key: value for key, value in UNICL.items() if key != 'image_encoder'}  # it takes the detector's backbone
FROZEN = {
    'classifier.': 'the two towers classify boxes and do not learn',
    'detector.backbone.': 'the backbone is frozen by default, as in the paper',
}
BOXES = Detector((8, 16, 32))

SMALL = {
    'DynamicHead': Small(DYNAMIC, DenseHead(16, (8, 16, 32))),
    'DynamicHead-legacy': Small({**DYNAMIC, 'offset_mode': 'legacy'}, DenseHead(16, (8, 16, 32))),
    'ZeroShotDetector': Small(ZERO_SHOT, BOXES, ('ZeroShotModel',), FROZEN),
    'ZeroShotDetector-shared': Small(
        {**ZERO_SHOT, 'classifier': SHARED, 'region': 'feature'}, BOXES, ('ZeroShotModel',), FROZEN
    ),
}
