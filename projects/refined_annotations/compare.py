"""Plant faults in annotations, let the data engine refine them, and measure what is kept, in one command.

    PYTHONPATH=. python -m projects.refined_annotations.compare [--seeds 0 1 2]

Of the digits of the embedded scenes 30 % have a shifted box or another name. For each seed the engine trains a small
model on the annotations as they are, merges its predictions with them and filters, twice. What is kept is compared
with the truth; beside it what no filter keeps, and as many annotations drawn at random.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from florence_mm.config.arguments import positive_int
from florence_mm.config.arguments import seed as seed_number
from florence_mm.corpora.scene_facts import read_scenes
from florence_mm.curation.annotation import REPORT, Models, Round, run_annotation
from florence_mm.curation.annotation_items import GIVEN, Item
from florence_mm.curation.annotation_options import FilterOptions, MergeOptions, RefineOptions
from florence_mm.curation.annotation_pictures import PictureOptions, read_part
from florence_mm.curation.annotation_settings import AnnotationSettings
from florence_mm.errors import one_sentence_errors
from florence_mm.formats.tasks import TaskRow, task_line
from florence_mm.utils.boxes import box_iou
from florence_mm.utils.files import write_atomic
from florence_mm.visualization.annotation import draw_annotation_report
from florence_mm.visualization.comparison import draw_comparison

from .faults import RENAMED, SHIFTED, Planted, plant_faults, true_rows
from .region_model import RegionTrainer, TrainingOptions

#: Least overlap of an annotation with the digit that it is of.
IOU = 0.5
#: What the table compares.
WAYS = {
    'none': 'no filter',
    'random': 'as many at random',
    'given_1': 'given ones kept, round 1',
    'given': 'given ones kept, round 2',
    'all': 'given and added ones, round 2',
}


def judge(kept: Sequence[Sequence[tuple[str, Sequence[float]]]], truth: Sequence[TaskRow]) -> int:
    """Count annotations that are right: each digit has one of its name that overlaps it by :data:`IOU` at least.

    Args:
        kept: for each picture names and boxes.
        truth: the true annotations of the same pictures.
    """
    right = 0
    for found, row in zip(kept, truth, strict=True):
        boxes = np.array([box for _, box in found]).reshape(-1, 4)
        overlaps = box_iou(np.array([region.boxes[0] for region in row.regions]), boxes)
        taken: set[int] = set()
        for place in np.argsort(-overlaps, axis=None, kind='stable').tolist():  # the closest first
            digit, number = divmod(place, len(boxes))
            if overlaps[digit, number] < IOU:
                break
            same = found[number][0] == row.regions[digit].text
            if same and ('digit', digit) not in taken and ('found', number) not in taken:
                taken |= {('digit', digit), ('found', number)}
                right += 1
    return right


def measure(kept: Sequence[Sequence[tuple[str, Sequence[float]]]], truth: Sequence[TaskRow], total: int) -> dict:
    """Precision and recall of annotations.

    Args:
        kept: for each picture names and boxes.
        truth: the true annotations.
        total: number of right ones that could be kept.
    """
    count, right = sum(map(len, kept)), judge(kept, truth)
    return {'kept': count, 'precision': right / count if count else 0.0, 'recall': right / total}


def _shown(items: Sequence[Item]) -> list[tuple[str, Sequence[float]]]:
    return [(item.text, item.box) for item in items if item.drop is None]


def _items(one: Round) -> list[list[Item]]:
    return [picture.items for part in one.parts for picture in read_part(part)]


def evaluate(rounds: Sequence[Round], planted: Planted, truth: Sequence[TaskRow], seed: int) -> dict[str, Any]:
    """Compare what the rounds keep with the truth."""
    faults = planted.faults
    digits, sound = sum(map(len, faults)), sum(fault is None for each in faults for fault in each)
    given = [[items[: len(each)] for items, each in zip(_items(one), faults, strict=True)] for one in rounds]
    if any(item.source != GIVEN for items in given[0] for item in items):  # a promise of the engine
        raise RuntimeError('an annotation that came with the pictures is not among the first')
    ways = {'none': measure([_shown(items) for items in given[0]], truth, sound)}
    places = [(n, k) for n, each in enumerate(faults) for k in range(len(each))]
    kept = sum(item.drop is None for items in given[-1] for item in items)
    drawn = set(random.Random(seed).sample(places, kept))
    chosen = [_shown([item for k, item in enumerate(items) if (n, k) in drawn]) for n, items in enumerate(given[0])]
    ways['random'] = measure(chosen, truth, sound)
    for way, items in (('given_1', given[1]), ('given', given[-1])):
        ways[way] = measure([_shown(one) for one in items], truth, sound)
    ways['all'] = measure([_shown(items) for items in _items(rounds[-1])], truth, digits)
    left = {
        kind: sum(
            item.drop is None
            for items, each in zip(given[-1], faults, strict=True)
            for item, fault in zip(items, each, strict=True)
            if fault == kind
        )
        for kind in (SHIFTED, RENAMED)
    }
    planted_kinds = {kind: sum(fault == kind for each in faults for fault in each) for kind in (SHIFTED, RENAMED)}
    return {'seed': seed, 'digits': digits, 'planted': planted_kinds, 'faults kept': left, 'ways': ways}


def run_seed(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Plant faults and refine with a seed."""
    start = time.process_time()
    folder = args.work_dir / f'seed{seed}'
    scenes = read_scenes(args.scenes / 'annotations' / 'train.json')[: args.pictures]
    truth = true_rows(scenes)
    planted = plant_faults(truth, args.share, seed)
    source = folder / 'planted.jsonl'
    write_atomic(source, ''.join(json.dumps(task_line(row)) + '\n' for row in planted.rows))
    settings = AnnotationSettings(
        PictureOptions(str(source), prefix=str(args.scenes / 'train')),
        folder / 'annotated',
        FilterOptions(min_score=args.min_score),
        MergeOptions(add=args.add, move=False),
        RefineOptions(rounds=2),
        batch_size=64,
    )
    trainer = RegionTrainer(TrainingOptions(seed=seed))
    rounds = run_annotation(settings, Models(trainer=trainer))
    for one in rounds:
        draw_annotation_report(one.report, one.annotations.parent / REPORT)
    result = evaluate(rounds, planted, truth, seed) | {'seconds': round(time.process_time() - start)}
    for way, found in result['ways'].items():
        print(f'seed {seed}: {WAYS[way]}: precision {found["precision"]:.4f}, recall {found["recall"]:.4f}', flush=True)
    return result


def describe(results: Sequence[dict[str, Any]]) -> str:
    """Write the table of all seeds as Markdown: the lowest of the seeds, and in brackets each seed's."""

    def cell(values: Sequence[float], form: str) -> str:
        return f'{min(values):{form}} ({", ".join(f"{value:{form}}" for value in values)})'

    seeds = ', '.join(str(one['seed']) for one in results)
    lines = [
        f'Annotations of digits of which a part is wrong; seeds {seeds}, the lowest and each',
        '',
        '| annotations | kept | precision | recall |',
        '|---|---|---|---|',
    ]
    for way, title in WAYS.items():
        runs = [one['ways'][way] for one in results]
        cells = [cell([run[name] for run in runs], form) for name, form in (('kept', '.0f'), ('precision', '.4f'))]
        lines.append(f'| {title} | {" | ".join([*cells, cell([run["recall"] for run in runs], ".4f")])} |')
    lines += ['', '| faults | planted | kept |', '|---|---|---|']
    for kind in (SHIFTED, RENAMED):
        counts = (', '.join(str(one[name][kind]) for one in results) for name in ('planted', 'faults kept'))
        lines.append(f'| {kind} | {" | ".join(counts)} |')
    text = (
        'Precision: kept ones that are right. Recall: of given ones those right ones that are kept, of all the digits '
        'that have a right one.'
    )
    return '\n'.join([*lines, '', text]) + '\n'


def compare(args: argparse.Namespace) -> int:
    """Run all seeds, and write ``comparison.md``, ``.json`` and ``.png`` into the work folder; returns the status."""
    cv2.setNumThreads(args.threads)
    args.work_dir, args.scenes = args.work_dir.absolute(), args.scenes.absolute()
    with threadpool_limits(args.threads):
        results = [run_seed(args, seed) for seed in args.seeds]
    text = describe(results)
    print(f'\n{text}')
    out = args.work_dir / 'comparison'
    write_atomic(out.with_suffix('.md'), text)
    write_atomic(out.with_suffix('.json'), json.dumps(results, indent=2) + '\n')
    panels = {
        metric: {WAYS[way]: [one['ways'][way][metric] for one in results] for way in WAYS}
        for metric in ('precision', 'recall')
    }
    draw_comparison(panels, out.with_suffix('.png'), f'{args.share:.0%} of the annotations are wrong', 1)
    return 0


def main() -> int:
    """Run with the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=seed_number, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--share', type=float, default=0.3, help='of annotations with a fault (default: %(default)s)')
    parser.add_argument('--pictures', type=positive_int, default=4000, help='default: %(default)s')
    parser.add_argument(
        '--min-score', type=float, default=0.3, help='least score of a kept annotation (default: %(default)s)'
    )
    parser.add_argument('--add', type=float, default=0.8, help='least score of an added one (default: %(default)s)')
    parser.add_argument('--threads', type=positive_int, default=1, help='of the solver (default: %(default)s)')
    parser.add_argument('--scenes', type=Path, default=Path('data/large_digits'), help='default: %(default)s')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/refined_annotations'), help='default: %(default)s'
    )
    with one_sentence_errors():
        return compare(parser.parse_args())


if __name__ == '__main__':
    sys.exit(main())
