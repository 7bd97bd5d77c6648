"""The processes of a run: what each gets, and what a person reads last when one of them fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROCESSES = Path(__file__).parents[2] / 'tools/processes.py'
TOOL = """
import os, signal, sys, time
kind, rank = sys.argv[3], int(os.environ['RANK'])
if kind == 'environment':
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    os.write(1, (' '.join([*(os.environ[name] for name in names), *sys.argv[1:]]) + '\\n').encode())
elif kind == 'all refuse':
    sys.exit(print('error: no key x', file=sys.stderr) or 2)
elif rank != 1 and kind in ('stopped', 'killed alone'):
    time.sleep(60)
elif rank != 1 and kind != 'signal':
    time.sleep(0.3 if kind == 'accident' else 0)
    print('Traceback (most recent call last):\\nRuntimeError: gloo: Connection closed by peer', file=sys.stderr)
    sys.exit(1)
elif kind == 'accident':
    int('seven')
elif kind in ('killed', 'killed alone'):
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
elif kind == 'refuses':
    time.sleep(0.5)
    sys.exit(print('a line before\\nerror: file.json: 3 is no name', file=sys.stderr) or 2)
elif kind == 'stopped':
    os.kill(os.getpid(), signal.SIGSTOP)
elif kind == 'signal':
    print('ready', flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(print('error: SIGINT: stopped in iteration 3', file=sys.stderr) or 130)
"""


@pytest.fixture
def start(tmp_path):
    """Start the tool above with so many processes."""
    (tmp_path / 'tool.py').write_text(TOOL)

    def run(kind, count=3, **environment):
        return subprocess.Popen(
            [sys.executable, str(PROCESSES), str(count), str(tmp_path / 'tool.py'), kind],
            **{'text': True, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE},
            env={**os.environ, **environment},
        )

    return run


def test_each_process_gets_its_rank_and_the_address_of_the_first(start):
    out = start('environment').communicate()[0].splitlines()
    ports = {line.split()[5] for line in out}
    assert len(ports) == 1 and 1024 < int(*ports) < 65536
    expected = [f'{rank} {rank} 3 3 127.0.0.1 {min(ports)} --launcher pytorch environment' for rank in range(3)]
    assert sorted(out) == expected
    # the second of two machines, of a given port; the first has it open
    out = start('environment', 2, NNODES='2', NODE_RANK='1', MASTER_ADDR='host', PORT='29123').communicate()[0]
    expected = [f'{rank + 2} {rank} 4 2 host 29123 --launcher pytorch environment' for rank in range(2)]
    assert sorted(out.splitlines()) == expected


@pytest.mark.parametrize(
    ('kind', 'status', 'last'),
    [
        ('all refuse', 2, 'error: no key x'),
        ('refuses', 2, 'error: file.json: 3 is no name'),
        ('killed', 137, 'error: rank 1 of 3 was ended by SIGKILL, as the system does when memory is exhausted'),
        # the others do not see it: they are ended after 5 s, where they would wait for 60
        ('killed alone', 137, 'error: rank 1 of 3 was ended by SIGKILL'),
        (
            'accident',
            1,
            "error: rank 1 of 3 ended with ValueError: invalid literal for int() with base 10: 'seven'",
        ),
    ],
)
def test_the_cause_is_read_last_and_alone(start, kind, status, last):
    run = start(kind)
    errors = run.communicate(timeout=30)[1].splitlines()
    assert run.returncode == status
    assert errors[-1].startswith(last)
    assert sum(line.startswith('error: ') for line in errors) == 1
    # what the others say of the lost connection is left out, an accident's own stack trace is not
    assert not any('Connection closed' in line for line in errors)
    assert any('Traceback' in line for line in errors) == (kind == 'accident')


def test_a_stopped_process_is_waited_for_with_a_limit(start):
    run = start('stopped', 2, FLORENCE_MM_STOPPED_LIMIT='0.5')
    said = run.communicate()[1]
    assert run.returncode == 1 and said.startswith('error: rank 1 of 2 (process ')
    assert said.endswith(') was stopped for 0.5 s, while the others waited\n')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_all_and_decide_the_status(start, number):
    run = start('signal', 2)
    run.stdout.readline(), run.stdout.readline()
    time.sleep(0.2)
    run.send_signal(number)
    errors = run.communicate()[1].splitlines()
    assert run.returncode == 128 + number
    said = {signal.SIGINT: 'error: SIGINT: stopped in iteration 3', signal.SIGTERM: 'error: SIGTERM: stopped'}
    assert errors == [said[number]]


@pytest.mark.parametrize(
    ('environment', 'said'),
    [
        ({'PORT': 'x'}, 'PORT=x is no port; give a number from 1 to 65535'),
        ({'PORT': '70000'}, 'PORT=70000 is no port'),
        ({'NNODES': 'two'}, 'NNODES=two is no number'),
    ],
)
def test_wrong_settings(start, environment, said):
    run = start('environment', **environment)
    assert run.communicate()[1].startswith(f'error: {said}') and run.returncode == 2


def test_a_port_in_use(start):
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        run = start('environment', PORT=str(port))
        assert run.communicate()[1].startswith(f'error: port {port} is in use by another program; give another PORT')
    assert run.returncode == 2
