"""florence-mm: its help, what it refuses, and the scripts in tools/ that are the same commands."""

import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from florence_mm.commands import main as command_line
from florence_mm.errors import UsageError
from florence_mm.version import __version__

TOOLS = Path(__file__).parents[2] / 'tools'
COMMANDS = sorted(command_line.find_summaries())


def words_of(example):
    """The command line of an example as a list: without a comment, a redirection, and what it is evaluated in."""
    line = example.split('      #')[0].split(' > ')[0]
    return shlex.split(line.removeprefix('eval "$(').removesuffix(')"'))


def examples_of(name):
    """Arguments of the examples of a subcommand that call itself."""
    lines = [words_of(line) for line in command_line.examples(command_line.load(name))]
    return [words[2:] for words in lines if words[:2] == ['florence-mm', name]]


def parse(name, arguments):
    return command_line.make_parser(command_line.load(name), f'florence-mm {name}').parse_args(arguments)


@pytest.fixture
def called(capsys):
    """Run florence-mm in this process; returns exit status, output and errors."""

    def run(*arguments):
        try:
            status = command_line.main(arguments)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


QUIETLY = """
import contextlib, io, json, sys
from florence_mm.commands.main import main
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit:  # as argparse ends after the help
            line
    for slow in ('torch', 'mmengine'):
        assert slow not in sys.modules, f'{line} imports {slow}'
"""


def test_help_and_completion_do_not_import_torch():
    lines = [['--help'], ['--version'], ['modles'], ['completion', 'bash'], ['completion', '--models']]
    arguments = json.dumps([*lines, *([name, '--help'] for name in COMMANDS)])
    ended = subprocess.run([sys.executable, '-c', QUIETLY, arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_module_is_the_same_command():
    line = [sys.executable, '-m', 'florence_mm', 'trian']
    ended = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr == "error: 'trian' is no command of python -m florence_mm; did you mean 'train'?\n"


def test_overview_has_every_command_in_its_group():
    summaries = {'train': 'Train.', 'zebra': 'Stripes.', 'classify': 'Name pictures.'}
    assert command_line.overview('x', summaries).splitlines()[2:] == [
        'usage: x COMMAND [arguments]',
        '       x COMMAND --help',
        '',
        'Your pictures and videos',
        '  classify    Name pictures',
        '',
        'Training and evaluation',
        '  train       Train',
        '',
        'Others',
        '  zebra       Stripes',
        '',
        'Options',
        '  -h, --help  this help',
        '  --version   the version',
    ]


def test_calls_without_a_command(called):
    status, out, err = called('--help')
    assert (status, err) == (0, '') and all(f'\n  {name} ' in out for name in COMMANDS)
    assert called() == (2, '', out)
    assert called('--version') == (0, f'florence-mm {__version__}\n', '')
    assert called('tarin')[::2] == (2, "error: 'tarin' is no command of florence-mm; did you mean 'train'?\n")
    assert called('qqq')[::2] == (2, "error: 'qqq' is no command of florence-mm; florence-mm --help lists all\n")
    told = 'error: --device is no option of florence-mm; options of a command come after its name\n'
    assert called('--device', 'cpu') == (2, '', told)


@pytest.mark.parametrize(
    ('words', 'end'),
    [
        (('--clases', 'a'), "--clases a; did you mean '--classes'?"),
        (('--zzz', '--out-dirs=3'), "--zzz --out-dirs=3; did you mean '--out-dir'?"),
        (('--zzz', '-q'), '--zzz -q'),
    ],
)
def test_an_unknown_option_names_a_near_one(called, words, end):
    status, _, err = called('classify', 'x.png', *words)
    assert status == 2
    assert err.splitlines()[-1] == f'florence-mm classify: error: unrecognized arguments: {end}'


def test_a_module_with_both_functions_is_a_command(tmp_path):
    both = '"""Count ``things``.\n\nMore."""\ndef add_arguments(parser): 1\ndef run(args): 1\n'
    sources = {'count': both, 'shared': 'def run(args): 1\n', 'other': 'from .count import add_arguments, run\n'}
    for name, source in sources.items():
        (tmp_path / f'{name}.py').write_text(source)
    assert command_line.find_summaries(tmp_path) == {'count': 'Count things.'}


@pytest.mark.parametrize('name', COMMANDS)
def test_help_can_be_read(name, called, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    status, out, err = called(name, '--help')
    assert (status, err) == (0, '')
    assert max(map(len, out.splitlines())) <= command_line.WIDTH
    usage, _, rest = out.partition('\n\n')
    assert usage.startswith(f'usage: florence-mm {name} ') and usage.endswith('[options]') and '\n' not in usage
    summary = command_line.find_summaries()[name]
    assert rest.startswith(summary) and summary.endswith('.') and len(summary) <= command_line.WIDTH - 14
    examples = rest.partition('\nexamples:\n')[2].splitlines()
    assert examples == [f'  {line}' for line in command_line.examples(command_line.load(name))] and examples
    for action in command_line.make_parser(command_line.load(name), 'x')._actions:
        assert action.help, f'{name}: {action.dest} has no help'


@pytest.mark.parametrize('name', COMMANDS)
def test_examples_are_command_lines(name):
    assert examples_of(name)
    for arguments in examples_of(name):
        parse(name, arguments)


#: Scripts over the same arguments; others take config and checkpoint first.
ALIKE = [
    name for name in COMMANDS if (TOOLS / f'{name}.py').exists() and not hasattr(command_line.load(name), 'COMMAND')
]


@pytest.mark.parametrize('name', ALIKE)
def test_script_takes_the_same_arguments(name, monkeypatch, capsys):
    given, tool = [], str(TOOLS / f'{name}.py')
    monkeypatch.setattr(command_line.load(name), 'run', lambda args: given.append(args) or 3)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(tool, run_name='__main__')
        return end.value.code

    assert [run(*arguments) for arguments in examples_of(name)] == [3] * len(examples_of(name))
    assert given == [parse(name, arguments) for arguments in examples_of(name)]
    assert run('--help') == 0
    out = capsys.readouterr().out
    assert out.startswith(f'usage: {name}.py ') and f'  python tools/{name}.py ' in out
    # options may name other commands, as `florence-mm models`
    assert f'florence-mm {name}' not in out and 'florence-mm ' not in out.partition('\nexamples:\n')[2]


def test_errors_that_a_user_can_fix_are_a_sentence(called, monkeypatch):
    def refuse(args):
        raise UsageError('the doctor is out; come back tomorrow')

    monkeypatch.setattr(command_line.load('doctor'), 'run', refuse)
    assert called('doctor') == (2, '', 'error: the doctor is out; come back tomorrow\n')


def test_launcher_without_its_environment(called, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    status, _, err = called('train', 'c.py', '--launcher', 'pytorch')
    assert status == 2 and '--launcher pytorch: RANK is not set, so the process was not started by pytorch' in err
    monkeypatch.setenv('RANK', '0')
    assert parse('train', ['c.py', '--launcher', 'pytorch']).launcher == 'pytorch'
