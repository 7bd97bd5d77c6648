"""A small Dynamic DETR, its encoder and its head."""

from instances import Small
from kinds import Kind, numbers, type_of
from small_coswin import COSWIN
from torch.nn import functional as F
from whole_kinds import DenseHead, Detector


class Pyramid(DenseHead):
    """Pyramids of maps to pyramids of maps."""

    loss = Kind.loss

    def outputs(self, module, items):
        maps = module(self._pyramid(module, items))
        return [{f'level {level}': one[row] for level, one in enumerate(maps)} for row in range(len(items))]


class SetHead(DenseHead):
    """Smooth pyramids to classes and boxes by stage: a region that rounding moves reads nearly the same."""

    def items(self, head):
        coarse = [numbers(1, self.channels, 4, 5, seed=seed).to(type_of(head)) for seed in range(3)]
        sizes = [tuple(side // stride for side in self.size) for stride in self.strides]
        return [[F.interpolate(one, size, mode='bicubic')[0] for size in sizes] for one in coarse]


class SetDetector(Detector):
    """Images to boxes of fixed classes."""

    def items(self, model):
        return [((numbers(3, *self.size, seed=seed) * 60 + 120).clamp(0, 255).byte(), seed) for seed in range(3)]


HEAD = {
    'type': 'DynamicDETRHead',
    'num_classes': 2,
    'in_channels': 16,
    'num_queries': 6,
    'num_stages': 2,
    'num_heads': 2,
    'filter_channels': 4,
    'feedforward_channels': 24,
    'strides': (8, 16, 32),
    'roi_size': 3,
}
ENCODER = {'type': 'DynamicDETREncoder', 'in_channels': 16, 'num_layers': 2}
DETECTOR = {
    'type': 'DynamicDETR',
    'data_preprocessor': {
        'type': 'mmdet.DetDataPreprocessor',
        'mean': [123.675, 116.28, 103.53],
        'std': [58.395, 57.12, 57.375],
    },
    'backbone': {**COSWIN, 'type': 'florence_mm.CoSwin'},
    'neck': {'type': 'mmdet.FPN', 'in_channels': [8, 16, 32], 'out_channels': 16, 'num_outs': 3},
    # groups of two channels: the mean of a normalised group of one is its bias, whatever the image, and may be dead
    'encoder': {**ENCODER, 'embed_dims': 32},
    # first boxes of about 28 pixels, on the middle level; those that grow and shrink are on the others
    'bbox_head': {
        **HEAD,
        'in_channels': 32,
        'strides': (2, 4, 8),
        'finest_scale': 10,
        'box_size': 0.5,
        'num_queries': 12,
    },
    'test_cfg': {'max_per_img': 5},
}

SMALL = {
    'DynamicDETREncoder': Small(ENCODER, Pyramid(16, (8, 16, 32))),
    'DynamicDETREncoder-wider': Small({**ENCODER, 'embed_dims': 32}, Pyramid(16, (8, 16, 32))),
    'DynamicDETRHead': Small(HEAD, SetHead(16, (8, 16, 32)), ['FindsObjects']),
    'DynamicDETRHead-dropout': Small({**HEAD, 'drop_rate': 0.1}, SetHead(16, (8, 16, 32)), ['FindsObjects']),
    'DynamicDETR': Small(DETECTOR, SetDetector((8, 16, 32))),
}
