"""Seconds from the start of a process to its first result: ``florence-mm classify``, ``tools/detect.py``, help.

Each command runs in processes of its own on random weights and one generated picture; imports, reading of the weights
and the encoding of the class names are all in it. Wall time needs a quiet machine; CPU time, of all threads, is that of
the whole process and is also raised by other programs, through caches and clock.

    python tools/benchmarks/start.py [--rounds 5] [--out start.json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from florence_mm.utils.files import write_atomic

ROOT = Path(__file__).parents[2]
CLASSIFIER = 'configs/unicl/unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'
DETECTOR = 'configs/dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py'
#: Seconds of wall time that the project allows on two quiet cores.
BARS = {'classify': 6.0, 'detect': 5.0, 'train --help': 0.4}
_MAKE = """
import sys, numpy as np, torch, cv2
from safetensors.torch import save_file
from mmengine.registry import DefaultScope
from florence_mm.config.load import load_config
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.registry import MODELS
torch.manual_seed(0)
config = load_config(sys.argv[1])
drop_pretrained(config.model, 'model')
with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'florence_mm'):
    model = MODELS.build(config.model)
    model.init_weights()  # what is left as the memory had it may take long to compute with
state = model.state_dict()
save_file({key: value.contiguous().clone() for key, value in state.items()}, sys.argv[2])
cv2.imwrite(sys.argv[3], np.random.default_rng(0).integers(256, size=(480, 640, 3), dtype=np.uint8))
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """Make weights and a picture in a folder; returns name and command line of each case."""
    picture = str(folder / 'picture.png')
    weights = {}
    for config in (CLASSIFIER, DETECTOR):
        weights[config] = str(folder / f'{Path(config).stem}.safetensors')
        _run([sys.executable, '-c', _MAKE, config, weights[config], picture])
    classify = ['-m', 'florence_mm', 'classify', picture, '--classes', 'a dog, a cat', '--model', CLASSIFIER]
    detect = ['tools/detect.py', DETECTOR, weights[DETECTOR], picture, '--out-dir', str(folder / 'detected')]
    return {
        'classify': [*classify, '--checkpoint', weights[CLASSIFIER]],
        'detect': detect,
        'train --help': ['tools/train.py', '--help'],
        'import torch': ['-c', 'import torch; print(torch.__version__)'],
    }


def measure(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command of Python; returns seconds to its first line of results, to its end, and CPU seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # the log goes to the standard output too
    line = next((line for line in process.stdout if b' - mmengine - ' not in line), b'')
    first = time.perf_counter() - start
    process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not line:
        raise RuntimeError(f'{" ".join(command)} ended with status {process.returncode}')
    return first, time.perf_counter() - start, used.ru_utime + used.ru_stime


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5, help='processes of each command (default: 5)')
    parser.add_argument('--only', default='', help='measure the cases whose name contains this')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: command for name, command in commands(Path(folder)).items() if args.only in name}
        # in turns, so that a machine that slows down meanwhile slows all of them; the first round fills the file cache
        rounds = [{name: measure(command) for name, command in cases.items()} for _ in range(args.rounds + 1)][1:]
    print(f'{"case":<16}{"bar":>6}{"result s":>10}{"end s":>8}{"CPU s":>8}')
    for name in cases:
        first, end, used = (
            round(statistics.median(values), 2) for values in zip(*(r[name] for r in rounds), strict=True)
        )
        bar = BARS.get(name)
        results.append({'name': name, 'bar': bar, 'first_s': first, 'end_s': end, 'cpu_s': used})
        told = '' if bar is None else 'ok' if first <= bar else 'ABOVE THE BAR'
        print(f'{name:<16}{bar or "":>6}{first:>10.2f}{end:>8.2f}{used:>8.2f}  {told}')
    if args.out:
        write_atomic(args.out, json.dumps({'cores': os.cpu_count(), 'results': results}, indent=2))
    return int(any(one['bar'] and one['first_s'] > one['bar'] for one in results))


def _environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, env=_environment(), check=True, stdout=subprocess.DEVNULL)


if __name__ == '__main__':
    sys.exit(main())
