"""Print a shell's completion script: commands, options, files and names of models.

For the shells bash, zsh, fish and tcsh; without a name it is that of the variable SHELL. In tcsh, models are not
completed.
"""

import argparse
import os
from pathlib import Path

import shtab

from florence_mm.config.metafiles import list_models
from florence_mm.errors import UsageError

from .main import PROG, PURPOSE, find_summaries, load

SHELLS = ('bash', 'zsh', 'fish', 'tcsh')
EXAMPLES = (
    'eval "$(florence-mm completion bash)"      # a line for ~/.bashrc',
    'eval "$(florence-mm completion zsh)"      # for ~/.zshrc, after compinit',
    'florence-mm completion fish > ~/.config/fish/completions/florence-mm.fish',
    'florence-mm completion tcsh > ~/.florence-mm.tcsh      # to source in ~/.tcshrc',
)
#: Arguments that take a model's name as well as a file.
MODELS = ('config', 'model', 'name', 'names', 'models')
#: Options that take a file, or by their last word a folder.
FILES = ('checkpoint', 'out', 'resume', 'index', 'weights')
FOLDERS = ('dir', 'root', 'folder')

_NAMES = f'{PROG} completion --models'
_MODEL_OR_FILE = {
    'bash': '_florence_mm_model_or_file',
    'zsh': '_florence_mm_model_or_file',
    'fish': f'({_NAMES}; __fish_complete_path (commandline -ct))',
    'tcsh': 'f',
    'preamble': {
        # the names are asked for when they are completed, so that they are those of the installed version
        'bash': f'_florence_mm_model_or_file() {{\n'
        f'  [[ $1 == */* ]] || compgen -W "$({_NAMES} 2>/dev/null)" -- "$1"\n'
        '  compgen -f -- "$1"\n}',
        'zsh': f'_florence_mm_model_or_file() {{\n'
        f'  local -a names\n  names=(${{(f)"$({_NAMES} 2>/dev/null)"}})\n  compadd -a names\n  _files\n}}',
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('shell', nargs='?', choices=SHELLS, help='the shell (default: the one of the variable SHELL)')
    parser.add_argument('--models', action='store_true', help='print the names of models instead, one a line')


def run(args: argparse.Namespace) -> int:
    """Print the script, or the names."""
    if args.models:
        print('\n'.join(list_models()))
        return 0
    shell = args.shell or Path(os.environ.get('SHELL', '')).name
    if shell not in SHELLS:
        raise UsageError(f'there is no completion for {shell or "an unknown shell"}; name one of {", ".join(SHELLS)}')
    print(shtab.complete(whole_parser(), shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Make a parser of all subcommands whose arguments say how they are completed."""
    parser = argparse.ArgumentParser(prog=PROG, description=PURPOSE)
    parser.add_argument('--version', action='version', help='print the version')
    commands = parser.add_subparsers(dest='command')
    for name, summary in find_summaries().items():
        command = commands.add_parser(name, help=summary, description=summary)
        load(name).add_arguments(command)
        for action in command._actions:
            kind = _completed_by(action)
            if kind and not hasattr(action, 'complete'):
                action.complete = kind
    return parser


def _completed_by(action: argparse.Action) -> dict | None:
    if action.choices or action.nargs == 0 or action.type not in (None, str, Path):
        return None
    if action.dest in MODELS:
        return _MODEL_OR_FILE
    if action.dest.rpartition('_')[2] in FOLDERS:
        return shtab.DIRECTORY
    if not action.option_strings or action.dest in FILES or action.metavar == 'FILE':
        return shtab.FILE
    return None
