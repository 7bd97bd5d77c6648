"""Compare all families of vision-language models by their embedded versions, in one table.

    python tools/compare_families.py [--only FAMILY ...] [--tasks TASK ...] [--weights FAMILY:TASK=FILE ...]
    python tools/compare_families.py --captions MINE.jsonl --images FOLDER --questions ASKED.jsonl

Captions, answers, matching, parameters, training seconds and memory side by side (docs/families.md). A model whose run
is in ``work_dirs`` is loaded, another one is trained; a test that is done is not done again. Own captions and questions
replace the data that are tested with, and with ``--train-...`` those that are trained on. The table, its numbers and a
picture are ``comparison.md``, ``.json`` and ``.png`` in the output folder. Exit status: 0; 1 if a test failed, which
the table says; 2 with one sentence if an argument is unusable.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.arguments import positive_int, seed
from florence_mm.errors import UsageError, one_sentence_errors, user_sentence
from florence_mm.protocols.families import FAMILIES, TASKS
from florence_mm.protocols.family_data import Files, OwnData
from florence_mm.protocols.family_runs import Cell, FamilyRuns
from florence_mm.protocols.family_table import describe, panels_of, plain
from florence_mm.utils.files import require_checkpoint
from florence_mm.utils.nearest import did_you_mean
from florence_mm.utils.progress import format_seconds
from florence_mm.visualization.comparison import write_comparison

TITLE = 'Families by their embedded versions'


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=FAMILIES, metavar='FAMILY', help=', '.join(FAMILIES))
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='default: all')
    parser.add_argument(
        '--weights', nargs='+', action='extend', default=[], metavar='FAMILY:TASK=FILE', help='a checkpoint to load'
    )
    for option, what in (('', 'test'), ('train-', 'train')):
        parser.add_argument(f'--{option}captions', type=Path, metavar='FILE', help=f'captions to {what} with')
        parser.add_argument(f'--{option}questions', type=Path, metavar='FILE', help=f'questions to {what} with')
        parser.add_argument(f'--{option}images', type=Path, metavar='FOLDER', help='pictures of both')
        parser.add_argument(f'--{option}regions', type=Path, metavar='FOLDER', help='their region files, for UNITER')
    parser.add_argument('--runs', type=Path, default=Path('work_dirs'), help='trained runs (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/families'), help='default: %(default)s')
    parser.add_argument('--seed', type=seed, default=0, help='of trainings (default: %(default)s)')
    parser.add_argument('--threads', type=positive_int, default=2, help='of torch (default: %(default)s)')
    return parser.parse_args()


def own_data(args: argparse.Namespace) -> OwnData | None:
    """Read the files of the user's data from the arguments.

    Raises:
        UsageError: files without their pictures or the other way round, or a path that does not exist.
        DataError: a row of a manifest is unusable.
    """
    found = {}
    for split in ('', 'train_'):
        given = {name: getattr(args, split + name) for name in ('captions', 'questions', 'images', 'regions')}
        option = '--' + split.replace('_', '-')
        manifests = given['captions'] or given['questions']
        if bool(manifests) != bool(given['images']):
            what = f'{option}images' if manifests else f'{option}captions or {option}questions'
            raise UsageError(f'captions or questions and their pictures belong together; give {what} too')
        if given['regions'] and not manifests:
            raise UsageError(
                f'{option}regions belong to captions or questions; give {option}captions or {option}questions'
            )
        for name, path in given.items():
            right = path is None or (path.is_file() if name in ('captions', 'questions') else path.is_dir())
            if not right:
                kind = 'file' if name in ('captions', 'questions') else 'folder'
                raise UsageError(f'{option}{name} {path} is no {kind}; correct the path')
        for name in ('captions', 'questions'):
            if given[name]:
                found[split + name] = Files(given[name], given['images'], given['regions'])
    if not found:
        return None
    data = OwnData(args.out / 'data', **found)
    data.check()
    return data


def given_weights(texts: list[str]) -> dict[tuple[str, str], str]:
    """Read ``FAMILY:TASK=FILE`` into the checkpoint of a family and task.

    Raises:
        UsageError: a text has another form or names no family or task, or there is no such file.
    """
    found = {}
    for text in texts:
        key, _, file = text.partition('=')
        family, _, task = key.partition(':')
        if not file or not task:
            raise UsageError(f'--weights {text} has another form than FAMILY:TASK=FILE; write git:vqa=mine.pth')
        if family not in FAMILIES:
            known = did_you_mean(family, FAMILIES) or f'; known are {", ".join(FAMILIES)}'
            raise UsageError(f'--weights {text} names no family{known}')
        if task not in FAMILIES[family].models:
            has = ', '.join(FAMILIES[family].models)
            raise UsageError(f'--weights {text}: {FAMILIES[family].title} has no config for {task}, only for {has}')
        require_checkpoint(file)
        found[family, task] = file
    return found


def chosen_tests(
    families: list[str], tasks: tuple[str, ...], weights: Mapping[tuple[str, str], str]
) -> list[tuple[str, str]]:
    """Family and task of all tests that are asked for.

    Raises:
        UsageError: there are none, or checkpoints are given for others.
    """
    todo = [(name, task) for name in families for task in tasks if task in FAMILIES[name].models]
    if not todo:
        has = '; '.join(f'{FAMILIES[name].title} has {", ".join(FAMILIES[name].models)}' for name in families)
        raise UsageError(f'no family is left for --tasks {" ".join(tasks)}: {has}; choose others')
    for name, task in weights:
        if (name, task) not in todo:
            raise UsageError(f'--weights {name}:{task} is of a test that --only and --tasks leave out; add it to them')
    return todo


def run_all(
    runs: FamilyRuns, families: list[str], todo: list[tuple[str, str]], weights: Mapping[tuple[str, str], str]
) -> dict[str, dict[str, Cell | str]]:
    """Run all tests; of one that fails the sentence is kept, and the next begins."""
    results: dict[str, dict[str, Cell | str]] = {name: {} for name in families}
    begun = time.monotonic()
    for number, (name, task) in enumerate(todo, 1):
        after = f', after {format_seconds(time.monotonic() - begun)}' if number > 1 else ''
        print(f'[{number}/{len(todo)}] {FAMILIES[name].title}, {task}{after}', flush=True)
        try:
            chosen = FAMILIES[name].task(task)
            results[name][task] = runs.run(f'{name}/{task}', chosen, weights.get((name, task)))
        except Exception as error:
            sentence = user_sentence(error)
            if sentence is None:
                traceback.print_exc()
                sentence = f'{type(error).__name__}: {error}'
            results[name][task] = ' '.join(sentence.split())
            print(f'  failed: {results[name][task]}', flush=True)
    return results


def main() -> int:
    """Compare, and write the three files."""
    with one_sentence_errors():
        args = parse_args()
        families = [name for name in FAMILIES if name in (args.only or FAMILIES)]
        tasks = tuple(name for name in TASKS if name in args.tasks)
        weights = given_weights(args.weights)
        todo = chosen_tests(families, tasks, weights)
        runs = FamilyRuns(args.out, args.runs, args.seed, args.threads, own_data(args))
        results = run_all(runs, families, todo, weights)
        table = describe(results, tasks)
        print(f'\n{table}')
        write_comparison(args.out, table, plain(results, tasks), panels_of(results, tasks), TITLE)
        print(f'written to {args.out}: comparison.md, comparison.json, comparison.png')
    return int(any(isinstance(cell, str) for cells in results.values() for cell in cells.values()))


if __name__ == '__main__':
    sys.exit(main())
