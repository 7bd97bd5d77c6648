"""List the models that have names, show one, and download its weights.

A name stands for config and checkpoint in every command. ``list`` takes a pattern, ``show`` prints all that is known of
a model, ``download`` gets its weights, and ``path`` prints their file, which is downloaded first if it is not there.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from florence_mm.config.metafiles import ModelEntry

EXAMPLES = (
    '',
    "list '*coswin-t*'",
    'list --task zero-shot-classification --pretrained',
    'show unicl_coswin-micro_1xb64-22e_digits',
    'path unicl_coswin-micro_1xb64-22e_digits',
)
_ACTIONS = ('list', 'show', 'download', 'path')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('action', nargs='?', choices=_ACTIONS, default='list', help='what to do (default: list)')
    parser.add_argument('name', nargs='?', help='name of a model; of a list a pattern, or a part of the names')
    parser.add_argument('--task', help='list only models of this task, such as detection')
    parser.add_argument('--pretrained', action='store_true', help='list only models with published weights')


def run(args: argparse.Namespace) -> int:
    """List or show models; returns the exit status."""
    from florence_mm.config.metafiles import list_models, model_entry
    from florence_mm.errors import UsageError

    if args.action == 'list':
        entries = [model_entry(name) for name in list_models(args.name, args.task, args.pretrained or None)]
        if not entries:
            raise UsageError(f'no model is like {args.name or args.task}; leave the filters out to see all')
        print(_table(entries))
        return 0
    if args.name is None:
        raise UsageError(f'models {args.action} needs the name of a model; models list gives them')
    if args.task or args.pretrained:
        raise UsageError(f'--task and --pretrained choose what models list prints; leave them out of {args.action}')
    entry = model_entry(args.name)
    if args.action == 'show':
        print(_details(entry))
        return 0
    from florence_mm.apis.named import weights_file

    file = weights_file(entry)
    print(file if args.action == 'path' else f'{entry.name}: {file}')
    return 0


def _table(entries: Sequence['ModelEntry']) -> str:
    from florence_mm.utils.numbers import readable

    rows = [(e.name, e.task, readable(e.parameters), readable(e.macs), _where(e)) for e in entries]
    rows.insert(0, ('name', 'task', 'parameters', 'multiply-adds', 'weights'))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        '  '.join((n.ljust(widths[0]), t.ljust(widths[1]), p.rjust(widths[2]), m.rjust(widths[3]), where))
        for n, t, p, m, where in rows
    ]
    return '\n'.join(lines)


def _where(entry: 'ModelEntry') -> str:
    from florence_mm.models.checkpoints.publishing import find_published
    from florence_mm.utils.home import published_folders

    if entry.weights is None:
        return '-'
    if not entry.weights.embedded:
        return f'from the web ({entry.weights.licence or "licence unknown"})'
    return 'on this machine' if find_published(entry.name, published_folders()) else 'by make zoo'


def _details(entry: 'ModelEntry') -> str:
    from florence_mm.utils.numbers import readable

    lines = [
        entry.name,
        f'  task        {entry.task}',
        f'  family      {entry.collection}',
        f'  config      {entry.config}',
        f'  parameters  {readable(entry.parameters)}',
        f'  cost        {readable(entry.macs)} multiply-adds for {entry.macs_input}; FLOPs are twice as many',
        f'  weights     {_where(entry)}',
    ]
    if (weights := entry.weights) is not None and not weights.embedded:
        lines += [f'  from        {weights.url}', f'  publisher   {weights.source}']
        lines += [f'  layout      {weights.layout or "florence_mm"}', f'  SHA-256     {weights.sha256}']
    for result in entry.results:
        scores = ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        lines.append(f'  result      {result["Dataset"]}: {scores}')
    return '\n'.join(lines)
