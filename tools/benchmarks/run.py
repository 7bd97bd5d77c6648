"""All comparisons with peers in one process: outputs first, then median time ratios; writes JSON.

python tools/benchmarks/run.py [--only NAME] [--rounds N] [--out FILE]
"""

import sys

import language
import vision
from common import main

if __name__ == '__main__':
    sys.exit(main([*vision.cases(), *language.cases()]))
