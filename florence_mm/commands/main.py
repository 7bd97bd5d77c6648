"""The console entry ``florence-mm``, which finds subcommands by the names of the modules beside this one.

A module with the functions ``add_arguments(parser)`` and ``run(args) -> int`` is a subcommand; others are not. ``run``
returns the exit status. The first line of the module's docstring is its line in ``florence-mm --help``. The help of the
subcommand has all of the docstring and the command lines of ``EXAMPLES``, a tuple of strings which may leave out its
name.

Only the module that is asked for is imported, and it imports torch, directly or not, inside ``run`` alone: help and
completion take a tenth of a second, torch takes two.
"""

import argparse
import ast
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from florence_mm.errors import one_sentence_errors
from florence_mm.utils.nearest import did_you_mean
from florence_mm.version import __version__

PROG = 'florence-mm'
PURPOSE = 'Florence, a vision foundation model: classify, search, detect, ask, train and evaluate.'
#: Subcommands in the order of the help; one that is in no group comes last.
GROUPS = {
    'Your pictures and videos': ('classify', 'search', 'detect', 'video', 'ask', 'caption', 'solve', 'demo'),
    'Training and evaluation': ('curate', 'capfilt', 'annotate', 'regions', 'train', 'test', 'evaluate'),
    'Models': ('models', 'convert', 'export'),
    'This installation': ('doctor', 'completion'),
}
OTHERS = 'Others'
#: Widest help, in columns; a line that is longer is hard to read.
WIDTH = 100

_FOLDER = Path(__file__).parent


class HelpFormatter(argparse.HelpFormatter):
    """Help of at most :data:`WIDTH` columns; paragraphs are filled, those with indented lines are kept."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(WIDTH, shutil.get_terminal_size().columns))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split('\n\n')
        return '\n\n'.join(p if '\n ' in p or p[:1] == ' ' else textwrap.fill(p, width) for p in paragraphs)

    def _get_default_metavar_for_positional(self, action: argparse.Action) -> str:
        return action.dest.upper()


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run ``florence-mm``; returns the exit status.

    Args:
        argv: the arguments; None: those of the process.
        prog: how the command was called, for its help.
    """
    first, *rest = list(sys.argv[1:] if argv is None else argv) or ['']
    if first in ('-h', '--help'):
        print(overview(prog))
        return 0
    if first == '--version':
        print(f'{PROG} {__version__}')
        return 0
    summaries = find_summaries()
    if first in summaries:
        return run(first, rest, f'{prog} {first}')
    if not first:
        print(overview(prog), file=sys.stderr)
    elif first.startswith('-'):
        print(f'error: {first} is no option of {prog}; options of a command come after its name', file=sys.stderr)
    else:
        end = did_you_mean(first, summaries, f'; {prog} --help lists all')
        print(f'error: {first!r} is no command of {prog}{end}', file=sys.stderr)
    return 2


def run_tool(name: str) -> int:
    """Run a subcommand with the arguments of the process under the name of its script in ``tools/``."""
    return run(name, sys.argv[1:], Path(sys.argv[0]).name)


def run(name: str, argv: Sequence[str], prog: str) -> int:
    """Run a subcommand; returns the exit status. Errors that a user can fix end the process with one sentence.

    Args:
        name: the subcommand.
        argv: its arguments.
        prog: how it was called, for its help.
    """
    module = load(name)
    parser = make_parser(module, prog)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unrecognized(unknown, parser))
    with one_sentence_errors():
        return module.run(args)


def _unrecognized(unknown: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """argparse's message for arguments that it does not know, with an option that one of them may mean."""
    options = [word.partition('=')[0] for word in unknown if word.startswith('--')]
    hints = (did_you_mean(option, parser._option_string_actions) for option in options)
    return f'unrecognized arguments: {" ".join(unknown)}{next(filter(None, hints), "")}'


def load(name: str) -> ModuleType:
    """Import a subcommand's module."""
    return import_module(f'{__package__}.{name}')


def make_parser(module: ModuleType, prog: str) -> argparse.ArgumentParser:
    """Make the parser of a subcommand.

    Args:
        module: its module.
        prog: how it is called, for the help.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(module.__doc__ or '').strip().replace('``', ''),
        epilog=_epilog(module, prog),
        formatter_class=HelpFormatter,
    )
    module.add_arguments(parser)
    parser._positionals.title = 'arguments'
    parser.usage = ' '.join([prog.replace('%', '%%'), *_required(parser), '[options]'])
    return parser


def _required(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What a command line needs, in words; argparse would write every option too."""
    for action in parser._actions:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if not action.option_strings:
            yield {'?': '[{}]', '*': '[{} ...]', '+': '{0} [{0} ...]'}.get(action.nargs, '{}').format(name)
        elif action.required:
            yield f'{action.option_strings[0]} {name}'


def examples(module: ModuleType) -> list[str]:
    """Example command lines of a subcommand; one that names no command is a list of its own arguments."""
    name = f'{PROG} {module.__name__.rpartition(".")[2]}'
    return [line if PROG in line else f'{name} {line}' for line in getattr(module, 'EXAMPLES', ())]


def _epilog(module: ModuleType, prog: str) -> str | None:
    name = f'{PROG} {module.__name__.rpartition(".")[2]}'
    called = f'python tools/{prog}' if prog.endswith('.py') else prog
    lines = [called + line.removeprefix(name) if line.startswith(name) else line for line in examples(module)]
    return '\n'.join(['examples:', *(f'  {line}' for line in lines)]).replace('%', '%%') if lines else None


def find_summaries(folder: Path = _FOLDER) -> dict[str, str]:
    """Find the subcommands and the first lines of their docstrings without importing them.

    Args:
        folder: where their modules are.
    """
    summaries = {}
    for path in sorted(folder.glob('*.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if {'add_arguments', 'run'} <= functions:
            summaries[path.stem] = (ast.get_docstring(tree) or '').partition('\n')[0].replace('``', '')
    return summaries


def overview(prog: str = PROG, summaries: Mapping[str, str] | None = None) -> str:
    """Write the help of ``florence-mm`` itself.

    Args:
        prog: how the command was called.
        summaries: name to summary of the subcommands; None: those that are found.
    """
    summaries = find_summaries() if summaries is None else summaries
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, OTHERS: tuple(name for name in summaries if name not in grouped)}
    lines = [PURPOSE, '', f'usage: {prog} COMMAND [arguments]', f'       {prog} COMMAND --help', '']
    for title, names in groups.items():
        present = [f'  {name:12}{summaries[name].rstrip(".")}' for name in names if name in summaries]
        lines += [title, *present, ''] if present else []
    lines += ['Options', '  -h, --help  this help', '  --version   the version']
    return '\n'.join(lines)
