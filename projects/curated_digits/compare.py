"""Train on raw pairs and on what curation keeps of them, and compare zero-shot accuracy, in one command.

    PYTHONPATH=. python -m projects.curated_digits.compare [--seeds 0 1 2]

Raw pairs of the embedded digits have planted faults: half of the captions name another digit, and there are copies with
captions that say nothing, tiny pictures and damaged files. For each seed

1. a model is trained on all pairs that can be read, by as many steps as all others;
2. curation scores the pairs with that very model and keeps those that are whole, no copies, and relevant;
3. a new model is trained on those.

No clean data help: what is kept was judged by a model of the raw pairs. Each step that is done is not done again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them

import torch  # isort: skip
from mmengine.config import Config

from florence_mm.apis.relevance import MakeTowers
from florence_mm.config.arguments import positive_int
from florence_mm.config.arguments import seed as seed_number
from florence_mm.config.load import load_config
from florence_mm.config.pick import insert_after
from florence_mm.corpora.digits import write_digits
from florence_mm.corpora.raw_digits import write_raw_digits
from florence_mm.curation.run import Result, curate
from florence_mm.curation.settings import make_settings
from florence_mm.engine.launch import train_and_test
from florence_mm.errors import one_sentence_errors
from florence_mm.utils.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-22e_digits.py'
RECIPE = ROOT / 'configs/curation/digits.py'
#: Steps of each model: those of the quickstart on its 1,347 clean pairs.
STEPS = 462
_BATCH = 64
SCORE = 'zero_shot/top1'


def make_shards(raw: Path, folder: Path, workers: int, changes: Mapping[str, Any], towers: MakeTowers | None) -> Result:
    """Curate the raw pairs by the recipe with some changes."""
    cfg = load_config(str(RECIPE), dict(changes))
    cfg.merge_from_dict({'work': str(folder / 'state'), 'out': str(folder / 'shards'), 'workers': workers})
    cfg.inputs = [dict(kind='tars', path=str(raw))]
    if towers is not None:
        cfg.model = dict(name=towers.model, checkpoint=towers.checkpoint, device=towers.device)
    return curate(make_settings(cfg), towers)


def training_config(shards: Path, total: int, digits: Path, steps: int) -> Config:
    """Config of a model on a set of shards, tested on the held-out digits, by as many epochs as make the steps."""
    cfg = load_config(str(MODEL))
    epochs = max(1, round(steps / (total // _BATCH)))
    cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval = epochs, epochs
    cfg.default_hooks.checkpoint.interval = epochs
    cosine = cfg.param_scheduler[1]
    cosine.end = epochs
    # raw pictures have any size
    resize = dict(type='mmpretrain.Resize', scale=(32, 32), interpolation='bicubic')
    pipeline = insert_after(cfg.train_dataloader.dataset.pipeline, 'LoadImage', resize)
    cfg.train_dataloader.dataset = dict(type='florence_mm.ImageTextShards', data_root=str(shards), pipeline=pipeline)
    for phase in ('val', 'test'):
        cfg[f'{phase}_dataloader'].dataset.ann_file = str(digits / 'test.jsonl')
    return cfg


def train(cfg: Config, folder: Path, seed: int) -> float:
    """Train and test, unless that is done, and return the zero-shot accuracy in percent."""
    return 100 * train_and_test(cfg, folder, seed)[SCORE]


def compare(args: argparse.Namespace) -> int:
    """Run all steps, print the table, and write it to the work folder; returns the exit status."""
    torch.set_num_threads(1)  # a model this small gains nothing from a second thread
    work = args.work_dir.absolute()
    write_digits(work / 'digits')
    planted = write_raw_digits(work / 'raw')
    lax = {'stage_a.min_side': 1, 'stage_b.duplicates': 'all'}
    everything = make_shards(work / 'raw', work / 'uncurated', args.workers, lax, None)
    rows = []
    for seed in args.seeds:
        folder = work / f'seed{seed}'
        cfg = training_config(work / 'uncurated/shards', everything.shards.total, work / 'digits', args.steps)
        before = train(cfg, folder / 'uncurated', seed)
        checkpoint = (folder / 'uncurated/last_checkpoint').read_text().strip()
        towers = MakeTowers(str(MODEL), checkpoint, 'cpu')
        chosen = {'stage_b.min_score': args.min_score}
        kept = make_shards(work / 'raw', folder / 'curated', args.workers, chosen, towers)
        cfg = training_config(folder / 'curated/shards', kept.shards.total, work / 'digits', args.steps)
        after = train(cfg, folder / 'curated_model', seed)
        rows.append({'seed': seed, 'uncurated': before, 'curated': after, 'by_reason': kept.by_reason})
    lines = [
        f'Zero-shot top-1 on held-out digits, {args.steps} steps each; {sum(planted.values())} raw pairs, of which '
        f'{everything.shards.total} can be read and {planted["right"]} are right',
        '',
        '| seed | all pairs that can be read | curated | pairs kept |',
        '|---|---|---|---|',
        *(
            f'| {row["seed"]} | {row["uncurated"]:.1f} | {row["curated"]:.1f} | {row["by_reason"]["kept"]} |'
            for row in rows
        ),
        '| mean | {:.1f} | {:.1f} | |'.format(
            *(sum(row[name] for row in rows) / len(rows) for name in ('uncurated', 'curated'))
        ),
    ]
    print('\n' + '\n'.join(lines))
    write_atomic(work / 'comparison.md', '\n'.join(lines) + '\n')
    write_atomic(work / 'comparison.json', json.dumps({'planted': planted, 'runs': rows}, indent=2))
    return 0


def main() -> int:
    """Run with the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=seed_number, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--steps', type=positive_int, default=STEPS, help='of each model (default: %(default)s)')
    parser.add_argument('--min-score', type=float, default=0.5, help='least cosine that is kept (default: %(default)s)')
    parser.add_argument('--workers', type=positive_int, default=2, help='processes that curate (default: 2)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/curation_compared'), help='default: %(default)s'
    )
    args = parser.parse_args()
    with one_sentence_errors():
        return compare(args)


if __name__ == '__main__':
    sys.exit(main())
