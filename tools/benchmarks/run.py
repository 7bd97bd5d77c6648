"""Run all speed comparisons with peers: outputs first, then median time ratios; writes JSON.

[PYTHONPATH=FOLDER] python tools/benchmarks/run.py [--only NAME] [--rounds N] [--out FILE]

Detection has compiled operators for peers: FOLDER is where a wheel of the compiled mmcv 2.1.0 was unpacked
(``python -m zipfile -e WHEEL FOLDER``). Without it these cases are left out, with a message.
"""

import sys

import co_attention
import detection
import dyhead
import language
import video
import vision
from common import main

from florence_mm.compat.mmcv_ext import is_compiled

if __name__ == '__main__':
    cases = [*vision.cases(), *language.cases(), *video.cases(), *co_attention.cases()]
    if is_compiled():
        cases += [*detection.cases(), *dyhead.cases()]
    else:
        print('mmcv is not compiled: detection.py and dyhead.py are left out (see the head of run.py)')
    sys.exit(main(cases))
