"""Florence's chain of stages on embedded data: does each stage bring what the paper says?

    PYTHONPATH=. python -m projects.pretraining.stages [--seeds 0 1 2]

Stage 1 has all texts, short ones in templates; stage 2 none in templates; stage 3 a higher resolution. Going on helps
by itself, so that two more runs go on for as many steps without what the stage changes.
"""

import sys

from projects.pretraining.runs import QUICKSTART, Run, compare

_FIRST = 'unicl_coswin-micro_1xb64-200_digit-pairs'
_SECOND = 'unicl_coswin-micro_1xb64-100_digit-pairs-original'
_LAST = 'unicl_coswin-micro_1xb64-150_digit-pairs-48'

RUNS = (
    Run('stage1', 'stage 1: 32 pixels, texts in templates', _FIRST, QUICKSTART),
    Run('stage2', 'stage 2: texts as they are', _SECOND, 'stage1'),
    Run('stage2_templates', 'instead: stage 2 in templates', f'{_SECOND}_templates', 'stage1'),
    Run('stage3', 'stage 3: 48 pixels', _LAST, 'stage2'),
    Run('stage3_32', 'instead: stage 3 at 32 pixels', f'{_LAST}_at-32', 'stage2'),
)
_IMAGES, _TEXTS, _CLASSES = 'text to image, R@1', 'image to text, R@1', 'classification, top-1'
DIFFERENCES = (
    ('stage2', 'stage1', _TEXTS),
    ('stage2', 'stage1', _IMAGES),
    ('stage2', 'stage2_templates', _TEXTS),
    ('stage2', 'stage2_templates', _IMAGES),
    ('stage3', 'stage2', _CLASSES),
    ('stage3', 'stage3_32', _CLASSES),
)


def main() -> int:
    """Run the chain with each seed."""
    return compare(RUNS, DIFFERENCES, 'Chain of stages on pictures of one and two digits', 'stages')


if __name__ == '__main__':
    sys.exit(main())
