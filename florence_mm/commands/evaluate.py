"""Evaluate a checkpoint by the paper's protocols: one table beside the paper's figures.

A suite is a list of protocols: florence has all of the paper, embedded every kind on embedded data. Results go to
results.json, results.md and results.png. A second run evaluates only what is new or has changed, so that a stopped
one goes on. Data that are missing are named with where to get them and where to put them.

Exit status: 0; 1 if a protocol failed, or with --strict if anything is missing; 2 with one sentence if an argument is
unusable.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_mm.config.arguments import non_negative_int, positive_int
from florence_mm.config.options import add_launcher, set_local_rank
from florence_mm.errors import UsageError

if TYPE_CHECKING:
    from florence_mm.protocols.base import Entry
    from florence_mm.protocols.suite import SuitePlan
    from florence_mm.protocols.table import Row

EXAMPLES = (
    'florence-mm evaluate --suite embedded --checkpoint work_dirs/quickstart/epoch_22.pth',
    'florence-mm evaluate --config MY.py --checkpoint MY.pth --only zero-shot "retrieval/*"',
    'florence-mm evaluate --list --data-root /datasets',
)
#: Seconds that a process waits for another.
_PATIENCE = 24 * 3600
_QUICKSTART = Path('work_dirs/quickstart/epoch_22.pth')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('--suite', default='florence', metavar='NAME', help='florence (default) or embedded')
    parser.add_argument('--checkpoint', metavar='FILE', help='.pth or .safetensors file of the two towers')
    parser.add_argument(
        '--config',
        '--model',
        metavar='CONFIG',
        help="name of a model, or config file of the two towers (default: the suite's)",
    )
    parser.add_argument('--data-root', default='data', metavar='DIR', help='folder of all data sets (data)')
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='GLOB', help='only these protocols, as in "retrieval/*/coco" or vqa'
    )
    parser.add_argument('--out', metavar='DIR', help='folder of results (work_dirs/evaluate/SUITE/CHECKPOINT)')
    parser.add_argument(
        '--task-checkpoint',
        nargs=2,
        action='append',
        default=[],
        metavar=('GLOB', 'FILE'),
        help='checkpoint of protocols whose model is trained for them, as in detection/coco; may be repeated',
    )
    parser.add_argument(
        '--task-config',
        nargs=2,
        action='append',
        default=[],
        metavar=('GLOB', 'CONFIG'),
        help="config of protocols in place of the suite's; may be repeated",
    )
    parser.add_argument(
        '--allow-partial',
        action='store_true',
        help='evaluate the part that is there of sets that are not complete, marked with * and not compared',
    )
    parser.add_argument('--train', action='store_true', help='train the models that have no checkpoint')
    add_launcher(parser)
    parser.add_argument('--strict', action='store_true', help='exit status 1 also if data or checkpoints are missing')
    parser.add_argument(
        '--list', action='store_true', help='list the protocols and what is there, and evaluate nothing'
    )
    parser.add_argument('--batch-size', type=positive_int, metavar='N', help="samples per batch (each protocol's own)")
    parser.add_argument(
        '--num-workers', type=non_negative_int, metavar='N', help="processes that load data (each protocol's own)"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, or list the protocols."""
    set_local_rank(args)
    from florence_mm.protocols.ranks import is_first
    from florence_mm.protocols.suite import run_suite
    from florence_mm.protocols.suites import select
    from florence_mm.protocols.table import FAILED, MISSING, UNTRAINED, counts

    entries = select(args.suite, args.only, args.allow_partial)
    if args.list:
        print(_listing(entries, args.data_root))
        return 0
    if args.suite == 'embedded':
        import torch

        # models this small gain nothing from a second thread, and lose tenfold to it on a busy machine
        torch.set_num_threads(1)
    plan = _plan(args, entries)
    if args.launcher != 'none':
        _join(args.launcher)
    about = {'suite': args.suite, 'config': plan.config, 'checkpoint': plan.checkpoint}
    rows = run_suite(entries, plan, about)
    if is_first():
        _summarize(rows)
        print(f'{counts(rows)}; see {plan.out_dir}/results.md, results.json and results.png')
    bad = {FAILED, MISSING, UNTRAINED} if args.strict else {FAILED}
    return int(any(row.status in bad for row in rows))


def _plan(args: argparse.Namespace, entries: Sequence['Entry']) -> 'SuitePlan':
    from florence_mm.config.load import load_config
    from florence_mm.engine.launch import require_checkpoint
    from florence_mm.protocols.suite import SuitePlan
    from florence_mm.protocols.suites import matches

    if args.train and args.launcher != 'none':
        raise UsageError(
            '--train trains in one process; train with tools/dist_train.sh and give the checkpoint with '
            '--task-checkpoint, or leave --launcher out'
        )
    for option, pairs in (('--task-checkpoint', args.task_checkpoint), ('--task-config', args.task_config)):
        for pattern, _ in pairs:
            if not any(matches(entry.protocol.name, pattern) for entry in entries):
                raise UsageError(f'{option} {pattern} matches none of the protocols to run; --list shows their names')
    for _, file in args.task_checkpoint:
        require_checkpoint(file)
    config, checkpoint = _towers(args)
    for file in (config, *(file for _, file in args.task_config)):
        load_config(file)
    out = args.out or Path('work_dirs/evaluate') / args.suite / Path(checkpoint).stem
    options = {'batch_size': args.batch_size, 'num_workers': args.num_workers}
    return SuitePlan(
        config,
        checkpoint,
        Path(args.data_root),
        Path(out),
        _load,
        _published,
        dict(args.task_checkpoint),
        dict(args.task_config),
        args.train,
        {name: value for name, value in options.items() if value is not None},
        tell=_tell,
    )


def _join(launcher: str) -> None:
    """Join the other processes of the launcher; they wait long for the first, which does the fits of linear probes."""
    from mmengine.dist import init_dist

    init_dist(launcher, timeout=_PATIENCE)


def _tell(line: str) -> None:
    print(line, flush=True)


def _towers(args: argparse.Namespace) -> tuple[str, str]:
    """Config and checkpoint of the two towers: a name stands for both."""
    from florence_mm.apis.named import resolve_model
    from florence_mm.engine.launch import require_checkpoint
    from florence_mm.protocols.suites import TOWERS

    config, checkpoint = resolve_model(args.config or TOWERS[args.suite], args.checkpoint)
    if checkpoint is None and args.config is None and args.suite == 'embedded':
        checkpoint = _published(str(config)) or (_QUICKSTART.is_file() and _QUICKSTART)
        if not checkpoint:
            raise UsageError(
                f'the suite embedded evaluates the quickstart, and {_QUICKSTART} is not there; run `make quickstart`, '
                'or name a checkpoint with --checkpoint'
            )
    if checkpoint is None:
        raise UsageError(f'name the checkpoint of {config} with --checkpoint, or a model with published weights')
    require_checkpoint(str(checkpoint))
    return str(config), str(checkpoint)


def _published(config: str) -> str | None:
    """File of the weights of an embedded model that were published on this machine; None if there are none."""
    from florence_mm.models.checkpoints.publishing import find_published
    from florence_mm.protocols.training import embedded_model
    from florence_mm.utils.home import published_folders

    name = embedded_model(config)
    file = None if name is None else find_published(name, published_folders())
    return None if file is None else str(file)


def _load(config: Any, checkpoint: str) -> Any:
    from florence_mm.apis.zoo import init_model

    return init_model(config, checkpoint)


def _listing(entries: Sequence['Entry'], data_root: str) -> str:
    lines = []
    for entry in entries:
        protocol = entry.protocol
        sentence = protocol.missing(data_root)
        model = 'two towers' if entry.config is None else Path(entry.config.rpartition(':')[2]).stem
        own = ', a checkpoint of its own' if entry.trained else ''
        paper = '' if protocol.paper is None else f', paper {protocol.paper:g}'
        lines.append(f'{protocol.name}  [{model}{own}{paper}]')
        if sentence is None:
            there = all(path.exists() for path in protocol.reads(data_root))
            sentence = 'data are there' if there else 'embedded data, written when it runs'
        lines.append(f'    {sentence}')
    return '\n'.join(lines)


def _summarize(rows: Sequence['Row']) -> None:
    """Print the figures of the table, and what is missing or failed."""
    from florence_mm.protocols.table import DONE, metric_name, ours_in_words, table_lines

    lines = table_lines(rows)
    width = max(len(line.name) for line in lines)
    metric = max(len(metric_name(line.metric)) for line in lines)
    found = [ours_in_words(line, '-') for line in lines]
    room = max(map(len, (*found, 'ours')))
    print(f'\n{"":{width}}  {"":{metric}} {"ours":{room}} {"paper":>6}')
    for line, ours in zip(lines, found, strict=True):
        paper = '' if line.paper is None else f'{line.paper:.1f}'
        print(f'{line.name:{width}}  {metric_name(line.metric):{metric}} {ours:{room}} {paper:>6}')
    said: dict[str, list[str]] = {}
    for row in rows:
        if row.part:
            said.setdefault(f'* {row.part}, not to be compared with the paper', []).append(row.name)
        if row.note:
            said.setdefault(('' if row.status == DONE else f'{row.status}: ') + row.note, []).append(row.name)
    for sentence, names in said.items():
        print(f'{", ".join(names)}: {sentence}')
