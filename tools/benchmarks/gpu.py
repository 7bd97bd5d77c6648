"""Figures of one GPU in one call of less than ten minutes, most important first, each printed as it comes.

    python tools/benchmarks/gpu.py [--seconds 540] [--only PART ...] [--out gpu.json]
    python tools/benchmarks/gpu.py --device cpu --dry-run      # the same calls on small models, to try them

Correctness of every operator against the CPU; throughput, peak memory and share of the measured matrix products of
training and inference, eager and compiled, beside timm, open_clip, mmdet and mmaction2 where they are installed. Data
are drawn, so that loading them costs nothing. A part that fails, or whose seconds are over, says so, and the next one
begins; the JSON file is written after each figure, so that an end loses nothing. Targets and predictions are in
`docs/scaling.md`.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them

import gpu_models as models  # isort: skip
import torch
from gpu_common import FAILURES, PartEnded, Row, Setting, first_line, limited
from gpu_operators import operators
from gpu_training import detection, pretraining
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from florence_mm.utils.files import write_atomic


@dataclass(frozen=True)
class Part:
    """Figures that belong together.

    Attributes:
        run: yields them.
        seconds: most that it takes; what earlier parts leave is not added.
    """

    run: Callable[[Setting], Iterator[Row]]
    seconds: float


#: Most important first; the last ones take what time is left.
PARTS: dict[str, Part] = {
    'matrix_products': Part(models.matrix_products, 10),
    'operators': Part(operators, 40),
    'unicl_loss': Part(models.unicl_loss, 20),
    'pretraining': Part(pretraining, 150),
    'swin': Part(models.swin_inference, 110),
    'coswin': Part(models.coswin, 110),
    'dynamic_head': Part(models.dynamic_head, 40),
    'video': Part(models.video, 40),
    'meter': Part(models.meter, 40),
    'captions': Part(models.captions, 25),
    'text_tower': Part(models.text_tower, 40),
    'detection': Part(detection, 40),
}


class Report:
    """Rows of a run, printed and kept in a JSON file as they come."""

    def __init__(self, file: Path | None, setting: Setting) -> None:
        self.file = file
        name = torch.cuda.get_device_name() if setting.gpu else platform.processor() or platform.machine()
        self.content = {'device': name, 'torch': torch.__version__, 'tiny': setting.tiny, 'rows': []}
        tiny = '; small models and pictures, whose figures say nothing about speed' if setting.tiny else ''
        print(f'{name}, torch {torch.__version__}{tiny}', flush=True)

    def add(self, part: str, row: Row) -> None:
        """Print a row and write the file."""
        print(row, flush=True)
        self.content['rows'].append({'part': part, **asdict(row)})
        if self.file is not None:
            write_atomic(self.file, json.dumps(self.content, indent=2))


def run_part(name: str, part: Part, setting: Setting, report: Report, until: float) -> bool:
    """Run a part within its seconds; return whether it failed."""
    left = min(part.seconds, until - time.monotonic())
    if left <= 0:
        report.add(name, Row(name, note=f'no time is left; run it with --only {name}'))
        return False
    setting.until = time.monotonic() + left
    try:
        with limited(left):
            for row in part.run(setting):
                report.add(name, row)
    except PartEnded:
        report.add(name, Row(name, note=f'ended after its {left:.0f} s; run it with --only {name} --seconds 3600'))
    except FAILURES as error:
        report.add(name, Row(name, note=f'failed, {type(error).__name__}: {first_line(error)}'))
        return True
    return False


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=540, help='all parts end after as many (default: 540)')
    parser.add_argument('--only', choices=PARTS, nargs='+', help='these parts, which then share all the seconds')
    parser.add_argument('--device', choices=('cuda', 'cpu'), help='default: the GPU, if torch finds one')
    parser.add_argument(
        '--dry-run', '--tiny', action='store_true', dest='tiny', help='small models, to try the calls, also on a CPU'
    )
    parser.add_argument('--out', type=Path, help='write the figures to this JSON file as they come')
    return parser.parse_args()


def main() -> int:
    """Command line; exit status 1 if a part failed."""
    args = parse_args()
    available = torch.cuda.is_available()
    device = torch.device(args.device or ('cuda' if available else 'cpu'))
    if not args.tiny and (device.type == 'cpu' or not available):
        print('torch finds no GPU, so there is nothing to measure; --device cpu --dry-run tries the calls on the CPU')
        return 0
    if args.tiny:
        torch.set_num_threads(1)  # small models gain nothing from more
    MMLogger.get_instance('mmengine', log_level='WARNING')  # it lists each initialised weight
    init_default_scope('florence_mm')
    until = time.monotonic() + args.seconds
    setting = Setting(device, args.tiny, until)
    report = Report(args.out, setting)
    failed = False
    for name, part in PARTS.items():
        if args.only is None:
            failed |= run_part(name, part, setting, report, until)
        elif name in args.only or name == 'matrix_products':  # other figures are shares of it
            failed |= run_part(name, Part(part.run, args.seconds), setting, report, until)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
