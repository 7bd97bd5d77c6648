"""Completion scripts, typed into real shells."""

import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

from florence_mm.commands import completion, main
from florence_mm.config.metafiles import list_models
from florence_mm.errors import UsageError

ROOT = Path(__file__).parents[2]
START = {'bash': ['--norc', '--noprofile', '-i'], 'zsh': ['-f', '-i']}
#: What is typed before the tab key -> what must then be on the screen.
TYPED = {
    'florence-mm trai': 'florence-mm train ',
    'florence-mm train --auto': 'florence-mm train --auto-scale-lr',
    'florence-mm train --launcher sl': 'florence-mm train --launcher slurm',
    'florence-mm train unicl_video-coswin-micro_z': 'florence-mm train unicl_video-coswin-micro_zero-shot_clips',
    'florence-mm test c.py wei': 'florence-mm test c.py weights.pth',
    'florence-mm test c.py w.pth --show-dir dra': 'florence-mm test c.py w.pth --show-dir drawn/',
}


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Start a shell on a terminal; returns a function that types a text and returns what comes."""
    (tmp_path / 'bin').mkdir()
    command = tmp_path / 'bin/florence-mm'
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m florence_mm "$@"\n')
    command.chmod(0o755)
    (tmp_path / 'weights.pth').touch()
    (tmp_path / 'drawn').mkdir()
    monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('TERM', 'dumb')
    monkeypatch.chdir(tmp_path)
    started = []

    def start(shell):
        child, screen = pty.fork()
        if child == 0:
            os.execvp(shell, [shell, *START[shell]])
        started.append((child, screen))

        def type_in(text, expected, seconds=20):
            os.write(screen, text.encode())
            seen, end = '', time.monotonic() + seconds
            while expected not in seen and time.monotonic() < end:
                if select.select([screen], [], [], 0.2)[0]:
                    seen += os.read(screen, 65536).decode(errors='replace')
            return seen

        return type_in

    yield start
    for child, screen in started:
        os.close(screen)
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize('shell', START)
def test_shell_completes(shell, terminal):
    if shutil.which(shell) is None:
        pytest.skip(f'runs where {shell} is installed')
    type_in = terminal(shell)
    ready = 'autoload -U compinit; compinit -u -D; ' if shell == 'zsh' else "bind 'set enable-bracketed-paste off'; "
    type_in(f'{ready}eval "$(florence-mm completion {shell})"; PS1=; echo rea""dy\n', 'ready')
    for text, expected in TYPED.items():
        seen = type_in(f'{text}\t', expected)
        assert expected in seen, (text, seen)
        type_in('\x15echo nex""t\n', 'next')  # Ctrl-U


@pytest.mark.parametrize('shell', completion.SHELLS)
def test_script_has_every_command_and_long_option(shell, capsys):
    assert main.main(['completion', shell]) == 0
    script = capsys.readouterr().out
    for name in main.find_summaries():
        assert name in script
        for action in main.make_parser(main.load(name), name)._actions:
            if action.help != '==SUPPRESS==' and action.option_strings:
                assert action.option_strings[-1].lstrip('-') in script, (name, action.option_strings)


def test_shell_is_that_of_the_user(monkeypatch, capsys):
    monkeypatch.setenv('SHELL', '/usr/bin/fish')
    parser = main.make_parser(completion, 'x')
    assert completion.run(parser.parse_args([])) == 0
    assert 'complete -c florence-mm' in capsys.readouterr().out
    for shell, told in (('/bin/dash', 'for dash'), ('', 'for an unknown shell')):
        monkeypatch.setenv('SHELL', shell)
        with pytest.raises(UsageError, match=rf'{told}; name one of bash, zsh, fish, tcsh'):
            completion.run(parser.parse_args([]))


def test_names_of_models(capsys):
    assert main.main(['completion', '--models']) == 0
    assert capsys.readouterr().out.splitlines() == list_models()
