"""UniCL's loss, CLIP's and cross-entropy on a mixture of class-labelled pictures and captions.

    PYTHONPATH=. python -m projects.pretraining.losses [--seeds 0 1 2]

All see as many pictures. Cross-entropy has a classifier in place of the text tower, so that it learns from the
class-labelled pictures alone and cannot retrieve.
"""

import sys

from projects.pretraining.runs import Run, compare

_UNICL = 'unicl_coswin-micro_1xb64-400_digit-pairs'

RUNS = (
    Run('unicl', "UniCL's loss", _UNICL),
    Run('clip', "CLIP's loss", f'{_UNICL}_clip-loss'),
    Run('cross_entropy', 'cross-entropy', 'coswin-micro_1xb64-400_digit-pairs'),
)
_METRICS = ('classification, top-1', 'image to text, R@1', 'text to image, R@1')
DIFFERENCES = (
    *(('unicl', 'clip', metric) for metric in _METRICS),
    ('unicl', 'cross_entropy', _METRICS[0]),
)


def main() -> int:
    """Train by each loss with each seed."""
    return compare(RUNS, DIFFERENCES, 'Losses on pictures of one digit with classes and of two with captions', 'losses')


if __name__ == '__main__':
    sys.exit(main())
