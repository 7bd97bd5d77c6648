"""UniCL's loss, CLIP's and cross-entropy on a mixture of class-labelled pictures and captions.

    PYTHONPATH=. python -m projects.pretraining.losses [--seeds 0 1 2]

All begin with the quickstart's towers and see as many pictures. Cross-entropy has a classifier in place of the text
tower, so that it learns from the class-labelled pictures alone and cannot retrieve. UniCL's run is the chain's stage 1.
"""

import sys

from projects.pretraining.runs import QUICKSTART, Run, compare

_UNICL = 'unicl_coswin-micro_1xb64-200_digit-pairs'
_CLASSIFIER = 'coswin-micro_1xb64-200_digit-pairs'

RUNS = (
    Run('stage1', "UniCL's loss", _UNICL, QUICKSTART),
    Run('clip', "CLIP's loss", f'{_UNICL}_clip-loss', QUICKSTART),
    Run('cross_entropy', 'cross-entropy', _CLASSIFIER, QUICKSTART, key='model.backbone.init_cfg.checkpoint'),
)
_METRICS = ('classification, top-1', 'image to text, R@1', 'text to image, R@1')
DIFFERENCES = (
    *(('stage1', 'clip', metric) for metric in _METRICS),
    ('stage1', 'cross_entropy', _METRICS[0]),
)


def main() -> int:
    """Train by each loss with each seed."""
    return compare(RUNS, DIFFERENCES, 'Losses on pictures of one digit with classes and of two with captions', 'losses')


if __name__ == '__main__':
    sys.exit(main())
