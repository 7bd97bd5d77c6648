"""Training runs of several seeds, each taken up where it was stopped, and a table and picture of their scores."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import seed as seed_number
from florence_mm.config.load import load_config
from florence_mm.engine.launch import train_and_test
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.checkpoints.publishing import find_published
from florence_mm.utils.files import write_atomic
from florence_mm.utils.home import published_folders
from florence_mm.visualization.comparison import draw_comparison

from .data import write_digit_pairs

CONFIGS = Path(__file__).parent / 'configs'
#: Metrics in the table: the words, and where runs write them, with the factor to percent.
METRICS = {
    'classification, top-1': (('zero_shot/top1', 100.0), ('accuracy/top1', 1.0)),
    'image to text, R@1': (('retrieval/i2t_R@1', 100.0),),
    'text to image, R@1': (('retrieval/t2i_R@1', 100.0),),
}


#: Name of the run that tools/quickstart.py makes.
QUICKSTART = 'quickstart'
_QUICKSTART_MODEL = 'unicl_coswin-micro_1xb64-22e_digits'


@dataclass(frozen=True)
class Run:
    """A training run of each seed.

    Attributes:
        name: of its folder, with the seed.
        words: what it is, in the table.
        config: file in ``configs/`` without its extension.
        begins_with: name of the run whose weights it begins with; None: its own.
        options: further settings of the config.
        key: of the config that names the checkpoint which it begins with.
    """

    name: str
    words: str
    config: str
    begins_with: str | None = None
    options: Mapping[str, object] | None = None
    key: str = 'load_from'


def train(run: Run, seed: int, data: Path, work_dir: Path) -> dict[str, float]:
    """Train and test, if that is not done, and return the scores in percent by the words of :data:`METRICS`."""
    folder = work_dir / f'{run.name}_seed{seed}'
    if not (folder / 'test_metrics.json').exists():
        cfg = load_config(str(CONFIGS / f'{run.config}.py'), dict(run.options or {}))
        for phase in ('train', 'val', 'test'):
            if cfg.get(f'{phase}_dataloader') is not None:
                dataset = cfg[f'{phase}_dataloader'].dataset
                dataset.ann_file = str(data / Path(dataset.ann_file).name)
        if run.begins_with is not None:
            cfg.merge_from_dict({run.key: checkpoint_of(run.begins_with, seed, work_dir)})
        train_and_test(cfg, folder, seed)
    found = {}
    for file in ('metrics.json', 'test_metrics.json'):
        if (folder / file).exists():
            found.update(json.loads((folder / file).read_text())['metrics'])
    return {words: factor * found[key] for words, keys in METRICS.items() for key, factor in keys if key in found}


def checkpoint_of(name: str, seed: int, work_dir: Path) -> str:
    """Return the checkpoint of a run; that of the quickstart, the same for all seeds, is trained if it is not there."""
    if name != QUICKSTART:
        return (work_dir / f'{name}_seed{seed}/last_checkpoint').read_text().strip()
    file = find_published(_QUICKSTART_MODEL, published_folders())
    folder = work_dir / QUICKSTART
    if file is None and not (folder / 'test_metrics.json').exists():
        tool, data = Path(__file__).parents[2] / 'tools/quickstart.py', work_dir / 'digits'
        command = [sys.executable, str(tool), '--work-dir', str(folder), '--data', str(data), '--require', '0.9']
        if subprocess.run(command).returncode:
            raise UsageError(f'{" ".join(command)} failed; its own words are above')
    return str(file or (folder / 'last_checkpoint').read_text().strip())


def compare(runs: Sequence[Run], differences: Sequence[tuple[str, str, str]], title: str, name: str) -> int:
    """Train all runs with each seed, and write ``NAME.json``, ``NAME.md`` and ``NAME.png`` into the work folder.

    Args:
        runs: in their order; a run stands behind the one that it begins with.
        differences: names of two runs and of a metric, whose difference is told seed by seed.
        title: above the table and the picture.
        name: of the files.

    Returns:
        the exit status, 0.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument('--seeds', type=seed_number, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--data', type=Path, default=Path('data/digit_pairs'), help='where the pictures are written')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pretraining'), help='default: %(default)s')
    args = parser.parse_args()
    with one_sentence_errors():
        torch.set_num_threads(1)  # models this small gain nothing from a second thread
        write_digit_pairs(args.data)
        scores: dict[str, list[dict[str, float]]] = {run.name: [] for run in runs}
        for seed in args.seeds:
            for run in runs:
                scores[run.name].append(train(run, seed, args.data.absolute(), args.work_dir.absolute()))
        table = '\n'.join([f'{title}; seeds {", ".join(map(str, args.seeds))}, mean and each', '', *rows(runs, scores)])
        told = [line for one in differences if (line := difference(runs, scores, *one))]
        text = '\n'.join([table, '', *told]) + '\n'
        print(f'\n{text}')
        out = args.work_dir / name
        write_atomic(out.with_suffix('.md'), text)
        write_atomic(out.with_suffix('.json'), json.dumps({'seeds': args.seeds, 'scores': scores}, indent=2))
        panels = {
            metric: {run.words: [one[metric] for one in scores[run.name] if metric in one] for run in runs}
            for metric in METRICS
        }
        draw_comparison(panels, out.with_suffix('.png'), title)
        print(f'written: {out}.md, .json and .png')
    return 0


def rows(runs: Sequence[Run], scores: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Lines of a Markdown table: a row a run, in each cell the mean over seeds and, in brackets, each seed's score."""
    lines = [f'| | {" | ".join(METRICS)} |', f'|---{"|---" * len(METRICS)}|']
    for run in runs:
        cells = []
        for metric in METRICS:
            values = [one[metric] for one in scores[run.name] if metric in one]
            each = ', '.join(f'{value:.1f}' for value in values)
            cells.append(f'{sum(values) / len(values):.1f} ({each})' if values else '–')
        lines.append(f'| {run.words} | {" | ".join(cells)} |')
    return lines


def difference(
    runs: Sequence[Run], scores: Mapping[str, Sequence[Mapping[str, float]]], one: str, other: str, metric: str
) -> str:
    """Say by how many points the first of two runs is above the other in a metric: the mean and each seed's."""
    words = {run.name: run.words for run in runs}
    pairs = zip(scores[one], scores[other], strict=True)
    margins = [a[metric] - b[metric] for a, b in pairs if metric in a and metric in b]
    if not margins:
        return ''
    each = ', '.join(f'{margin:+.1f}' for margin in margins)
    return f'- {metric}: {sum(margins) / len(margins):+.1f} ({each}) for "{words[one]}" over "{words[other]}"'
