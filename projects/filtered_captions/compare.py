"""Train on captions as they came, on what CapFilt makes of them, and on as many at random, in one command.

    PYTHONPATH=. python -m projects.filtered_captions.compare CONFIG --captioner MODEL --filter MODEL [--seeds 0 1 2]

Of the embedded scenes of large digits a quarter have clean captions, and all others one caption, of which 40 % are
those of other pictures. For each seed

1. a captioner and a filter are fine-tuned on the clean captions, apart from each other, unless they are given by name
   or with a checkpoint;
2. CapFilt draws a caption of each of the other pictures, and filters all; the area under the filter's ROC curve is
   measured on the given ones, as it is known which were exchanged;
3. a new model of CONFIG is trained on each set of captions by as many steps, and tested by the config's own test.

Each step that is done is not done again.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them

import torch  # isort: skip
from mmengine.config import Config

from florence_mm.apis.capfilt import ModelCaptioner, ModelMatcher
from florence_mm.config.arguments import positive_int
from florence_mm.config.arguments import seed as seed_number
from florence_mm.config.load import load_config
from florence_mm.config.metafiles import is_model_name
from florence_mm.corpora.exchanged_captions import CLEAN, WEB, Exchanged, write_exchanged_captions
from florence_mm.curation.capfilt import REPORT, CapFilt, CapFiltSettings, run_capfilt
from florence_mm.curation.options import CapFiltOptions, InputOptions
from florence_mm.curation.state import combined_digest
from florence_mm.engine.launch import runner_in, train_and_test
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.evaluation.functional.roc import roc_auc
from florence_mm.formats.rows import read_rows
from florence_mm.utils.files import write_atomic
from florence_mm.visualization.capfilt import draw_text_report
from florence_mm.visualization.comparison import draw_comparison

#: Sets of captions that a model is trained on, in the order of the table.
WAYS = {
    'web': 'as they came',
    'random': 'as many as CapFilt keeps, at random',
    'filtered': 'given ones that the filter keeps',
    'drawn': 'drawn ones that the filter keeps',
    'capfilt': 'CapFilt',
}
DEFAULT_WAYS = ('web', 'random', 'capfilt')
#: Columns of the table, and how their numbers are written.
_COLUMNS = {'captions': '.0f', 'false': '.1f', 'score': '.4f'}


def train_on(cfg: Config, manifest: Path, pictures: Path, steps: int, seed: int) -> Config:
    """Change a config so that it trains on a manifest by exactly these steps, which are one epoch.

    Rows are repeated, all before one comes again, in another order each time; their list is written beside the
    manifest. Schedules keep their shape.

    Args:
        cfg: the config.
        manifest: the captions.
        pictures: the folder of their pictures.
        steps: of the optimizer.
        seed: of the order.

    Raises:
        UsageError: there are no captions, or the config does not train on a manifest, by epochs, or has a schedule of
            single epochs.
    """
    loader = cfg.train_dataloader
    if str(loader.dataset.get('type')).rpartition('.')[2] != 'ImageTextManifest':
        raise UsageError(
            f'{cfg.filename} trains on {loader.dataset.get("type")}; give a config that trains on ImageTextManifest'
        )
    before = cfg.train_cfg.get('max_epochs')
    if before is None:
        raise UsageError(f'{cfg.filename} has no train_cfg.max_epochs; give a config that trains by epochs')
    text, rng = manifest.read_text(), random.Random(seed)
    lines = text.splitlines()
    if not lines:
        raise UsageError(f'{manifest} has no captions to train on; lower --threshold, or leave this way out of --ways')
    wanted: list[str] = []
    while len(wanted) < steps * loader.batch_size:
        wanted += rng.sample(lines, len(lines))
    # its name tells a run on these captions from one on others
    listed = manifest.with_name(f'{manifest.stem}_{steps}x{loader.batch_size}_{combined_digest(text)[:8]}.jsonl')
    write_atomic(listed, '\n'.join(wanted[: steps * loader.batch_size]) + '\n')
    loader.dataset.ann_file, loader.dataset.data_prefix = str(listed), str(pictures)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = 1
    for scheduler in cfg.get('param_scheduler') or ():
        if scheduler.get('by_epoch', True):
            _shrink(scheduler, before, cfg.filename)
    return cfg


def _shrink(scheduler: dict[str, Any], epochs: int, config: str) -> None:
    """Shrink a schedule by epochs to one epoch."""
    single = next((key for key in ('milestones', 'step_size') if key in scheduler), None)
    if single is not None:
        raise UsageError(
            f'{config}: {single} of {scheduler["type"]} is of single epochs, and captions are learned in one; give a '
            'schedule such as CosineAnnealingLR'
        )
    scheduler['convert_to_iter_based'] = True
    for key in {'begin', 'end', 'T_max'} & set(scheduler):
        scheduler[key] /= epochs
    if 'gamma' in scheduler:
        scheduler['gamma'] **= epochs


def clean_model(
    name: str, checkpoint: str | None, folder: Path, args: argparse.Namespace, seed: int
) -> tuple[str, str | None]:
    """Find a model and its checkpoint; a config without one is trained on the clean captions.

    Returns:
        what names the model, and its checkpoint; None: that of the name.
    """
    if checkpoint is not None or is_model_name(name):
        return name, checkpoint
    written = folder / 'last_checkpoint'  # there is one checkpoint, that of the end
    if not written.exists():
        cfg = train_on(load_config(name), folder.parent / 'data' / CLEAN, args.scenes / 'train', args.clean_steps, seed)
        runner_in(cfg, folder, seed).train()
    return name, written.read_text().strip()


def filter_auc(rows: Sequence[Mapping[str, Any]], exchanged: Mapping[str, bool]) -> float:
    """Area under the ROC curve of the filter, whose positives are given captions that were not exchanged.

    Args:
        rows: texts of CapFilt (:func:`florence_mm.curation.capfilt_texts.texts_schema`).
        exchanged: by the name of the picture.
    """
    given = [row for row in rows if row['source'] == 'web' and row['match'] is not None]
    true = torch.tensor([not exchanged[Path(row['path']).name] for row in given])
    return roc_auc(torch.tensor([row['match'] for row in given], dtype=torch.float64), true)


def choose(rows: Sequence[dict[str, Any]], threshold: float, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Choose the texts of each way of :data:`WAYS` from all that the filter has seen.

    Args:
        rows: texts of CapFilt.
        threshold: least probability of a kept text.
        seed: of the choice at random.
    """
    seen = [row for row in rows if row['match'] is not None]
    kept = [row for row in seen if row['match'] >= threshold]
    places = sorted(random.Random(seed).sample(range(len(seen)), len(kept)))
    return {
        'web': [row for row in seen if row['source'] == 'web'],
        'random': [seen[place] for place in places],
        'filtered': [row for row in kept if row['source'] == 'web'],
        'drawn': [row for row in kept if row['source'] == 'synthetic'],
        'capfilt': kept,
    }


def false_share(rows: Sequence[Mapping[str, Any]], exchanged: Mapping[str, bool]) -> float:
    """Share of the given captions among texts that are those of another picture, in percent; 0 without any."""
    given = [exchanged[Path(row['path']).name] for row in rows if row['source'] == 'web']
    return 100 * sum(given) / len(given) if given else 0.0


def draw_and_filter(args: argparse.Namespace, seed: int, folder: Path) -> CapFilt:
    """Exchange captions, make both models ready, and run CapFilt."""
    data = folder / 'data'
    write_exchanged_captions(args.scenes, data, Exchanged(args.exchanged, args.clean, seed))
    captioner = clean_model(args.captioner, args.captioner_checkpoint, folder / 'captioner', args, seed)
    matcher = clean_model(args.filter, args.filter_checkpoint, folder / 'filter', args, seed)
    source = InputOptions('manifest', str(data / WEB), prefix=str(args.scenes / 'train'))
    options = CapFiltOptions(threshold=args.threshold, top_p=args.top_p, seed=seed, batch_size=64)
    settings = CapFiltSettings(source, folder / 'capfilt', options)
    found = run_capfilt(settings, ModelCaptioner(*captioner), ModelMatcher(*matcher))
    draw_text_report(found.report, settings.out / REPORT)
    return found


def run_seed(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Do all steps with a seed; returns what the table tells of it."""
    from pyarrow import parquet

    folder = args.work_dir / f'seed{seed}'
    found = draw_and_filter(args, seed, folder)
    rows = [row for path in found.texts for row in parquet.read_table(path).to_pylist()]
    exchanged = {row['image']: row['exchanged'] for _, row in read_rows(folder / 'data' / WEB)}
    result: dict[str, Any] = {'seed': seed, 'auc': filter_auc(rows, exchanged), 'ways': {}}
    print(f'seed {seed}: area under the ROC curve of the filter {result["auc"]:.4f}')
    for way, texts in choose(rows, args.threshold, seed).items():
        if way not in args.ways:
            continue
        manifest = folder / f'{way}.jsonl'
        lines = [{'image': Path(row['path']).name, 'text': row['text'], 'source': row['source']} for row in texts]
        write_atomic(manifest, ''.join(json.dumps(line) + '\n' for line in lines))
        score = None
        if args.config is not None:
            cfg = train_on(load_config(args.config), manifest, args.scenes / 'train', args.steps, seed)
            metrics = train_and_test(cfg, folder / f'model_{way}', seed)
            if args.metric not in metrics:
                raise UsageError(f'--metric {args.metric} is none of the test, which has {", ".join(metrics)}')
            score = metrics[args.metric]
        result['ways'][way] = {'captions': len(texts), 'false': false_share(texts, exchanged), 'score': score}
    return result


def describe(results: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Write the table of all seeds as Markdown: the mean, and in brackets each seed's."""

    def cell(values: Sequence[float | None], form: str) -> str:
        if None in values:
            return '-'
        each = ', '.join(f'{value:{form}}' for value in values)
        return f'{sum(values) / len(values):{form}} ({each})'

    seeds = ', '.join(str(one['seed']) for one in results)
    lines = [
        f'Captions of pictures of which a part was exchanged; seeds {seeds}, mean and each',
        '',
        f'Area under the ROC curve of the filter: {cell([one["auc"] for one in results], ".4f")}',
        '',
        f'| trained on captions | number | given ones that are false, % | {metric} |',
        '|---|---|---|---|',
    ]
    for way in results[0]['ways']:
        runs = [one['ways'][way] for one in results]
        cells = (cell([run[name] for run in runs], form) for name, form in _COLUMNS.items())
        lines.append(f'| {WAYS[way]} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def compare(args: argparse.Namespace) -> int:
    """Run all seeds, and write ``comparison.md``, ``.json`` and ``.png`` into the work folder; returns the status."""
    torch.set_num_threads(args.threads)
    args.work_dir, args.scenes = args.work_dir.absolute(), args.scenes.absolute()
    results = [run_seed(args, seed) for seed in args.seeds]
    text = describe(results, args.metric)
    print(f'\n{text}')
    out = args.work_dir / 'comparison'
    write_atomic(out.with_suffix('.md'), text)
    write_atomic(out.with_suffix('.json'), json.dumps(results, indent=2))
    if args.config is not None:
        scores = {WAYS[way]: [one['ways'][way]['score'] for one in results] for way in results[0]['ways']}
        longest = math.ceil(max(score for each in scores.values() for score in each)) or 1
        draw_comparison({args.metric: scores}, out.with_suffix('.png'), 'New models by their captions', longest)
    return 0


def main() -> int:
    """Run with the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config of the new models; without one only the filter is measured')
    for what in ('captioner', 'filter'):
        parser.add_argument(f'--{what}', required=True, metavar='MODEL', help='name, or config')
        parser.add_argument(f'--{what}-checkpoint', metavar='FILE', help='its weights; without, a config is trained')
    parser.add_argument('--seeds', type=seed_number, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=DEFAULT_WAYS, help='default: web random capfilt')
    parser.add_argument('--metric', default='caption/CIDEr-D', help='of the test (default: %(default)s)')
    parser.add_argument('--steps', type=positive_int, default=500, help='of each new model (default: %(default)s)')
    parser.add_argument('--clean-steps', type=positive_int, default=500, help='of captioner and filter (default: 500)')
    parser.add_argument('--exchanged', type=float, default=0.4, help='part of the captions (default: %(default)s)')
    parser.add_argument('--clean', type=float, default=0.25, help='part of the pictures (default: %(default)s)')
    parser.add_argument('--threshold', type=float, default=0.5, help='least probability kept (default: %(default)s)')
    parser.add_argument('--top-p', type=float, default=0.9, help='nucleus of captions (default: %(default)s)')
    parser.add_argument('--threads', type=positive_int, default=1, help='of torch (default: %(default)s)')
    parser.add_argument('--scenes', type=Path, default=Path('data/large_digits'), help='default: %(default)s')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/filtered_captions'), help='default: %(default)s'
    )
    with one_sentence_errors():
        return compare(parser.parse_args())


if __name__ == '__main__':
    sys.exit(main())
