"""Commands of the pages: their scripts, options, configs and targets of make exist; the launchers pass theirs on."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from florence_mm.commands import main as command_line

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ('README.md', 'CONTRIBUTING.md', 'docs/**/*.md', 'configs/*/README.md', 'projects/**/*.md')
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
TARGETS = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
#: Beginnings of lines that are commands of ours, and of what is written within a sentence.
_OURS = r'(?:florence-mm|python (?:-m florence_mm|tools/\S+\.py)|(?:bash )?tools/\w+\.sh|make [a-z-]+)\b'
_LINE = re.compile(rf'^(?: {{4,}})?((?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?{_OURS}.*)$', re.MULTILINE)
_WITHIN = re.compile(rf'`((?:[A-Z_]+=\S+ )*{_OURS}[^`]*)`')
#: What stands for a number in the pages.
_NUMBERS = {'GPUS': '8', 'N': '8', 'SEED': '0'}


class Parsed(BaseException):
    """A script has read its arguments; it goes no further."""


def commands():
    """Each command of the pages once, as words, with the page where it stands first."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace('\\\n', ' ')
        for line in [*_LINE.findall(text), *_WITHIN.findall(text)]:
            line = re.split(r' +#| [>|&]+ |;', line)[0]
            found.setdefault(tuple(words(line)), page.relative_to(ROOT).as_posix())
    return [pytest.param(list(line), id=f'{page}: {" ".join(line)}') for line, page in found.items()]


def words(line):
    """Words of a command without the environment; what may be left out is there."""
    line = re.sub(r'(?:(?<=\s)\.\.\.|\.\.\.(?=\]|\s|$)|…|\$\(.*?\))', '', line)
    line = re.sub(
        r'\[(-[^\]\[]*(?:\[[^\]]*\])?[^\]]*|[A-Z]+)\]', lambda m: m[1].replace('[', '').replace(']', ''), line
    )
    split = [_NUMBERS.get(word, word) for word in shlex.split(line)]
    while re.match(r'[A-Z_]+=', split[0]):
        split.pop(0)
    return split


def read_arguments(script, arguments, monkeypatch):
    """The arguments as the script's own parser reads them; those that it does not know end this with a status."""
    original, reading = argparse.ArgumentParser.parse_known_args, []

    def parse_known_args(self, args=None, namespace=None):
        if reading:  # a parser of its subcommand
            return original(self, args, namespace)
        reading.append(self)
        known, unknown = original(self, arguments)
        assert not unknown
        raise Parsed(known)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', parse_known_args)
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(Parsed):
        runpy.run_path(str(script), run_name='__main__')


@pytest.mark.parametrize('line', commands())
def test_command(line, monkeypatch):
    line = [word for word in line if word != 'bash']
    if line[0] == 'make':
        assert {word for word in line[1:] if '=' not in word} <= TARGETS
        return
    for word in line:
        if re.fullmatch(r'(?:configs|tools)/[a-z\d_./-]+\.(?:py|sh|yml)', word):
            assert (ROOT / word).exists()
    name, *arguments = line[1:] if line[0].endswith('python') else line
    if name == '-m':
        name, *arguments = 'florence-mm', *arguments[1:]
    if name == 'florence-mm':
        if arguments and arguments[0] not in ('--help', '--version', 'COMMAND'):
            module = command_line.load(arguments[0])
            if arguments[1:] and '--help' not in arguments:
                command_line.make_parser(module, 'florence-mm').parse_args(arguments[1:])
        return
    script = ROOT / name
    assert script.exists()
    if script.suffix == '.sh' and arguments:
        script, arguments = launched(script.name, arguments)
    if 'benchmarks' in script.parts:
        # some begin at once
        source = ''.join(path.read_text() for path in (script, script.parent / 'common.py'))
        assert all(f"'{word}'" in source for word in arguments if word.startswith('--'))
    elif arguments:
        read_arguments(script, arguments, monkeypatch)


def launched(script, arguments):
    """The tool that a launcher starts, and its arguments."""
    tool = ROOT / f'tools/{script.removesuffix(".sh").split("_")[1]}.py'
    if script.startswith('slurm'):
        partition, job, config, second, *rest = arguments
        return tool, [config, *(['--work-dir', second] if tool.stem == 'train' else [second]), *rest]
    at = {'evaluate': 0, 'train': 1, 'test': 2}[tool.stem]
    assert int(arguments[at]) > 0
    return tool, [*arguments[:at], *arguments[at + 1 :]]


def test_commands_are_found():
    found = [param.values[0] for param in commands()]
    for begin in (
        ['bash', 'tools/dist_train.sh'],
        ['tools/slurm_train.sh'],
        ['florence-mm', 'search'],
        ['make', 'zoo'],
    ):
        assert any(line[: len(begin)] == begin for line in found), begin
    assert len(found) > 100


@pytest.mark.parametrize(
    'line',
    [
        'florence-mm train x.py --smok 1',
        'florence-mm trian x.py',
        'make testt',
        'tools/dist_train.sh x.py 8 --apm',
        'tools/slurm_train.sh partition x.py',
        'python tools/gone.py x',
        'bash tools/dist_train.sh configs/unicl/gone.py 2',
        'python tools/benchmarks/export.py --ony',
    ],
)
def test_a_wrong_command_is_noticed(line, monkeypatch):
    with pytest.raises((SystemExit, AssertionError, FileNotFoundError, ImportError, KeyError, ValueError)):
        test_command(words(line), monkeypatch)
