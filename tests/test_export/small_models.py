"""Models small enough to be exported in seconds."""

from mmengine.config import Config

VOCAB = 600
_TINY = {'embed_dims': 8, 'depths': [1, 1], 'num_heads': [1, 1], 'window_size': 4}
_COSWIN = {'type': 'florence_mm.CoSwin', 'arch': _TINY, 'img_size': 32, 'patch_size': 4}
TWO_TOWERS = {
    'type': 'florence_mm.UniCL',
    'image_encoder': {**_COSWIN, 'out_indices': (1,)},
    'text_encoder': {
        'type': 'florence_mm.CLIPTextTower',
        'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2},
        'context_length': 12,
        'vocab_size': VOCAB,
    },
    'tokenizer': {'type': 'florence_mm.CLIPTokenizer', 'vocab_size': VOCAB, 'context_length': 12},
    'embed_dims': 8,
}
METER = {
    'type': 'florence_mm.METER',
    'image_encoder': {**_COSWIN, 'arch': {**_TINY, 'depths': [1], 'num_heads': [1]}, 'out_indices': (0,)},
    'text_encoder': {'type': 'florence_mm.CLIPTokenEncoder', 'tower': TWO_TOWERS['text_encoder']},
    'tokenizer': {'type': 'florence_mm.MaskedCLIPTokenizer', 'vocab_size': VOCAB},
    'fusion': {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_ratio': 1.0, 'init_std': 0.4},
    'heads': {
        'vqa': {'type': 'florence_mm.FusionVQAHead', 'answers': ['one', 'two', 'three', 'red']},
        'itm': {'type': 'florence_mm.FusionITMHead'},
    },
    'max_text_len': 12,
}
CLASSIFIER = {
    'type': 'mmpretrain.ImageClassifier',
    'data_preprocessor': {'type': 'mmpretrain.ClsDataPreprocessor', 'mean': [100.0] * 3, 'std': [50.0] * 3},
    'backbone': {**_COSWIN, 'arch': {**_TINY, 'depths': [1], 'num_heads': [1]}, 'out_indices': (0,)},
    'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
    'head': {
        'type': 'mmpretrain.LinearClsHead',
        'num_classes': 3,
        'in_channels': 8,
        'loss': {'type': 'mmpretrain.CrossEntropyLoss'},
    },
}
RECOGNIZER = {
    'type': 'mmaction.Recognizer3D',
    'data_preprocessor': {'type': 'mmaction.ActionDataPreprocessor', 'format_shape': 'NCTHW'},
    'backbone': {'type': 'florence_mm.VideoCoSwin', 'arch': _TINY, 'window_size': (2, 4, 4)},
    'cls_head': {
        'type': 'mmaction.I3DHead',
        'num_classes': 3,
        'in_channels': 16,
        'average_clips': 'prob',
        'loss_cls': {'type': 'mmaction.CrossEntropyLoss'},
    },
}
_ANCHORS = {'type': 'mmdet.AnchorGenerator', 'ratios': [1.0], 'octave_base_scale': 2, 'scales_per_octave': 1}
DETECTOR = {
    'type': 'mmdet.ATSS',
    'data_preprocessor': {
        'type': 'mmdet.DetDataPreprocessor',
        'mean': [103.0, 116.0, 123.0],
        'std': [57.0, 58.0, 59.0],
        'bgr_to_rgb': True,
        'pad_size_divisor': 16,
    },
    'backbone': {**_COSWIN, 'out_indices': (0, 1)},
    'neck': {'type': 'mmdet.FPN', 'in_channels': [8, 16], 'out_channels': 16, 'num_outs': 2},
    'bbox_head': {
        'type': 'florence_mm.DynamicHead',
        'num_classes': 3,
        'in_channels': 16,
        'feat_channels': 16,
        'num_blocks': 1,
        'anchor_generator': {**_ANCHORS, 'strides': [4, 8], 'center_offset': 0.5},
    },
    'test_cfg': {
        'nms_pre': 50,
        'min_bbox_size': 0,
        'score_thr': 0.1,
        'nms': {'type': 'nms', 'iou_threshold': 0.3},
        'max_per_img': 20,
    },
}


def _davit(**options):
    arch = {'embed_dims': [8, 16], 'depths': [1, 1], 'num_heads': [2, 2], 'num_groups': [2, 4], 'window_size': 4}
    return {'type': 'florence_mm.FlorenceDaViT', 'arch': arch, **options}


#: Models on DaViT: towers as Florence-2's, a classifier as those of ImageNet, a detector.
DAVIT = {
    'towers': {**TWO_TOWERS, 'image_encoder': _davit(out_norm='pooled')},
    'classifier': {key: value for key, value in CLASSIFIER.items() if key != 'neck'}
    | {
        'backbone': _davit(merge_kernel=2, channel_scale='channels', out_norm='pooled'),
        'head': {**CLASSIFIER['head'], 'in_channels': 16},
    },
    'detector': {**DETECTOR, 'backbone': _davit(out_indices=(0, 1), out_norm='map')},
}


def config(model, *steps, data_set='florence_mm.ImageTextManifest', pack='florence_mm.PackImageText'):
    """A config of a model whose test pipeline has these steps."""
    package = pack.partition('.')[0]
    loader = {'mmdet': 'mmdet.LoadImageFromFile', 'mmpretrain': 'mmpretrain.LoadImageFromFile'}
    loader = loader.get(package, 'florence_mm.LoadImage')
    pipeline = [{'type': loader}, *steps, {'type': pack}]
    data = {'type': data_set, 'ann_file': 'nowhere', 'pipeline': pipeline}
    return Config({'model': model, 'default_scope': 'florence_mm', 'test_dataloader': {'dataset': data}})
