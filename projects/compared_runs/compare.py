"""Train and test several ways of one thing, with several seeds, and write a table and a plot.

    PYTHONPATH=. python -m projects.compared_runs.compare projects/compared_runs/configs/git_access.py [--seeds 0 1 2]

The plan is a Python file with

- ``title``, a line above the plot;
- ``metrics``: name of a score of the test -> its name in the table;
- ``ways``: name of a way -> ``dict(config=..., options={...}, without=[...])``: the config, changes of it as of
  ``--cfg-options``, and dotted keys that are left out, such as a head. ``{seed}`` in a value is the seed, so that a run
  can begin with a checkpoint of its own.

Runs are in ``WORK_DIR/WAY/seedN``; what is done is not done again. Results are ``comparison.md``, ``.json``, ``.png``.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them

import torch  # isort: skip
from mmengine.config import Config

from florence_mm.config.arguments import positive_int
from florence_mm.config.arguments import seed as seed_number
from florence_mm.config.load import load_config
from florence_mm.engine.launch import train_and_test
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.visualization.comparison import write_comparison

_KEYS = {'config', 'options', 'without'}

#: Name of a way -> name of a score -> its value of each seed.
Results = dict[str, dict[str, list[float]]]


def read_plan(path: Path) -> Config:
    """Read a plan.

    Raises:
        UsageError: it lacks a part, a way has an unknown key or no config, or two ways have one folder.
    """
    if not path.is_file():
        raise UsageError(f'{path} does not exist; give the file of a plan')
    plan = Config.fromfile(path)
    if lacking := [key for key in ('title', 'metrics', 'ways') if not plan.get(key)]:
        raise UsageError(f'{path} has no {lacking[0]}; give title, metrics and ways')
    folders: dict[str, str] = {}
    for name, way in plan.ways.items():
        if unknown := sorted(way.keys() - _KEYS):
            raise UsageError(f'way {name!r} of {path} has {unknown[0]!r}; it takes {", ".join(sorted(_KEYS))}')
        if 'config' not in way:
            raise UsageError(f'way {name!r} of {path} has no config; name one')
        other = folders.setdefault(_folder(name), name)
        if other != name:
            raise UsageError(f'ways {other!r} and {name!r} of {path} have one folder, {_folder(name)}; rename one')
    return plan


def make_config(way: Mapping[str, Any], seed: int) -> Config:
    """Load the config of a way with its changes.

    Raises:
        UsageError: a key that is left out is not in the config.
    """
    options = {key: _with_seed(value, seed) for key, value in (way.get('options') or {}).items()}
    cfg = load_config(way['config'], options)
    for key in way.get('without') or ():
        folder, _, last = key.rpartition('.')
        inner = _inside(cfg, folder) if folder else cfg
        if not isinstance(inner, Mapping | Config) or last not in inner:
            raise UsageError(f'config {way["config"]} has no {key}, which is to be left out; name a key that it has')
        inner.pop(last)  # of a Config nothing can be deleted
    return cfg


def _inside(cfg: Config, key: str) -> Any:
    """What a dotted key of a config names; None if there is none."""
    inner: Any = cfg
    for part in key.split('.'):
        inner = inner.get(part) if isinstance(inner, Mapping | Config) else None
    return inner


def _folder(way: str) -> str:
    """Name of the folder of a way's runs."""
    return re.sub(r'\W+', '_', way)


def _with_seed(value: Any, seed: int) -> Any:
    return value.replace('{seed}', str(seed)) if isinstance(value, str) else value


def run(plan: Config, seeds: Sequence[int], work_dir: Path) -> Results:
    """Run all ways with all seeds.

    Raises:
        UsageError: a test lacks a score of the plan.
    """
    ways = {name: [make_config(way, seed) for seed in seeds] for name, way in plan.ways.items()}  # all are read first
    found: Results = {name: {metric: [] for metric in plan.metrics} for name in ways}
    for place, seed in enumerate(seeds):
        for name, configs in ways.items():
            folder = work_dir / _folder(name) / f'seed{seed}'
            print(f'{name}, seed {seed}: {folder}')
            scores = train_and_test(configs[place], folder, seed)
            for metric, values in found[name].items():
                if metric not in scores:
                    raise UsageError(f'{metric} is none of the test of {name!r}, which has {", ".join(scores)}')
                values.append(float(scores[metric]))
    return found


def describe(plan: Config, results: Results, seeds: Sequence[int]) -> str:
    """Write the table as Markdown: the mean, and in brackets each seed's."""
    lines = [f'{plan.title}; seeds {", ".join(map(str, seeds))}, mean and each', '']
    lines += [f'| | {" | ".join(plan.metrics.values())} |', f'|---|{"---|" * len(plan.metrics)}']
    for name, scores in results.items():
        cells = (
            f'{sum(values) / len(values):.3f} ({", ".join(f"{value:.3f}" for value in values)})'
            for values in scores.values()
        )
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def panels_of(plan: Config, results: Results) -> dict[str, dict[str, list[float]]]:
    """Scores by the metrics' names in the table, and by way."""
    return {title: {name: scores[metric] for name, scores in results.items()} for metric, title in plan.metrics.items()}


def main() -> None:
    """Run with the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('plan', type=Path, help='a Python file')
    parser.add_argument('--seeds', type=seed_number, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--threads', type=positive_int, default=1, help='of torch (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/NAME_OF_THE_PLAN')
    with one_sentence_errors():
        args = parser.parse_args()
        torch.set_num_threads(args.threads)
        plan, work_dir = read_plan(args.plan), args.work_dir or Path('work_dirs') / args.plan.stem
        results = run(plan, args.seeds, work_dir)
        text = describe(plan, results, args.seeds)
        print(f'\n{text}')
        write_comparison(work_dir, text, results, panels_of(plan, results), plan.title)


if __name__ == '__main__':
    sys.exit(main())
