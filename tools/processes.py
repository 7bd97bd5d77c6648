"""Start the processes of a run on this machine, and end with the words of the one that failed.

    python tools/processes.py PROCESSES TOOL [arguments of the tool]

``dist_train.sh``, ``dist_test.sh`` and ``dist_evaluate.sh`` call it. It gives each process the environment of
``torchrun`` (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``) and reads NNODES, NODE_RANK,
MASTER_ADDR and PORT from its own. When a process fails, the others, which wait for it, are ended, and what it said is
printed last. SIGINT and SIGTERM are passed on. Exit status: that of the process that failed first, 128 + N after signal
N.
"""

import contextlib
import ctypes
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

#: Seconds for a process to end after the failure of another, or after a signal to all.
GRACE = 5, 60
#: Seconds that a process may be stopped (SIGSTOP, a debugger), while the others wait for it.
STOPPED = float(os.environ.get('FLORENCE_MM_STOPPED_LIMIT', '60'))
_DEATH_SIGNAL = 1  # of Linux's prctl
#: What a process says whose peer has gone.
_CONSEQUENCE = re.compile(r'Connection (?:closed|reset)|Broken pipe|gloo|NCCL|ProcessGroup|DistBackendError|TCPStore')
_TRACE = re.compile(r'^(?:\[rank\d+\]: ?)?Traceback \(most recent call last\):')
_LAST_OF_TRACE = re.compile(r'^(?:\[rank\d+\]: ?)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)')
_SENTENCE = re.compile(r'^(?:[\w.-]+: )?error: ')


class Process:
    """One process and what it writes to stderr.

    A sentence and a stack trace are held back until it is clear whether they are the cause of the run's end or a
    consequence of another process's.
    """

    def __init__(self, rank: int, command: list[str], environment: dict[str, str]) -> None:
        self.rank = rank
        self.process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, preexec_fn=_apart_but_not_left
        )
        os.set_blocking(self.process.stderr.fileno(), False)
        self.held: list[str] = []
        self.since = self.stopped_since = None
        self._line = ''

    @property
    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it runs."""
        return self.process.poll()

    def send(self, number: int) -> None:
        """Send a signal to it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def read(self) -> bool:
        """Print what it wrote, or hold it back; False at its end."""
        try:
            data = os.read(self.process.stderr.fileno(), 65536)
        except BlockingIOError:
            return True
        if not data:
            self._take(self._line)
            self._line = ''
            return False
        *lines, self._line = (self._line + data.decode(errors='replace')).split('\n')
        for line in lines:
            self._take(line + '\n')
        if '\r' in self._line and not self.held:  # a progress bar has no end of line
            _print(self._line)
            self._line = ''
        return True

    def _take(self, text: str) -> None:
        if self.held or _begins_end(text):
            self.since = self.since or time.monotonic()
            self.held.append(text)
        elif text:
            _print(text)

    def release(self) -> None:
        """Print what was held back."""
        _print(''.join(self.held))
        self.held, self.since = [], None

    def is_stopped(self) -> bool:
        """Whether SIGSTOP has stopped it (Linux)."""
        try:
            return Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()[0] == 'T'
        except OSError:  # it has ended, or this is no Linux
            return False


def main() -> int:
    """Start the processes and wait for them; returns the exit status."""
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or sys.argv[1] == '0':
        return _fail('give the number of processes and a tool', 2)
    count = int(sys.argv[1])
    nodes, node = _number('NNODES', 1), _number('NODE_RANK', 0)
    address = os.environ.get('MASTER_ADDR', '127.0.0.1')
    port = os.environ.get('PORT') or ('29500' if nodes > 1 else str(_free_port()))
    if not port.isdigit() or not 0 < int(port) < 65536:
        return _fail(f'PORT={port} is no port; give a number from 1 to 65535, or none for a free one', 2)
    if node == 0 and not _is_free(int(port)):
        return _fail(f'port {port} is in use by another program; give another PORT, or none for a free one', 2)
    environment = {**os.environ, 'WORLD_SIZE': str(nodes * count), 'LOCAL_WORLD_SIZE': str(count)}
    environment.update(MASTER_ADDR=address, MASTER_PORT=port, GROUP_RANK=str(node))
    if count > 1:
        environment.setdefault('OMP_NUM_THREADS', '1')  # else each process takes all cores
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(number))
    command = [sys.executable, sys.argv[2], '--launcher', 'pytorch', *sys.argv[3:]]
    processes = []
    for local in range(count):
        rank = {'RANK': str(node * count + local), 'LOCAL_RANK': str(local)}
        processes.append(Process(node * count + local, command, {**environment, **rank}))
    return _report(processes, _watch(processes, asked), asked, nodes * count)


def _watch(processes: list[Process], asked: list[int]) -> list[Process]:
    """Wait for all; returns those that failed by themselves, in the order of their ends."""
    selector = selectors.DefaultSelector()
    for process in processes:
        selector.register(process.process.stderr, selectors.EVENT_READ, process)
    failed: list[Process] = []
    ended: set[int] = set()
    passed_on, deadline, killing = 0, None, False
    while len(ended) < len(processes):
        for key, _ in selector.select(0.1):
            if not key.data.read():
                selector.unregister(key.fileobj)
        now = time.monotonic()
        for number in asked[passed_on:]:
            passed_on += 1
            deadline = now + GRACE[1]
            for process in processes:
                process.send(number)
        for process in processes:
            if process.rank in ended:
                continue
            if process.status is not None:
                ended.add(process.rank)
                if process.status and not killing:
                    failed.append(process)
                    deadline = deadline or now + GRACE[0]
            elif process.held and deadline is None and now - process.since > GRACE[1]:
                process.release()  # it logged an error and goes on
            elif not killing:
                process.stopped_since = (process.stopped_since or now) if process.is_stopped() else None
                if process.stopped_since and now - process.stopped_since > STOPPED and deadline is None:
                    failed.append(process)
                    deadline = now
        if deadline is not None and now > deadline:
            for process in processes:
                if process.rank not in ended:
                    process.send(signal.SIGKILL if killing or process in failed else signal.SIGTERM)
                    process.send(signal.SIGCONT)
            deadline, killing = now + GRACE[0], True
    for key in list(selector.get_map().values()):
        while key.data.read() and selector.select(0):
            continue
    return failed


def _report(processes: list[Process], failed: list[Process], asked: list[int], world: int) -> int:
    """Print the words of the process that failed first, and return its status."""
    if not failed:
        for process in processes:
            process.release()
        return 0
    if asked:
        speaker = next((process for process in failed if _sentence(process)), None)
        name = signal.Signals(asked[0]).name
        return _fail(_sentence(speaker) if speaker else f'{name}: stopped', 128 + asked[0])
    cause = min(failed, key=lambda process: (_likelihood(process), failed.index(process)))
    who, status = f'rank {cause.rank} of {world}', cause.status or 1
    if cause.stopped_since:
        return _fail(f'{who} (process {cause.process.pid}) was stopped for {STOPPED:g} s, while the others waited', 1)
    if _sentence(cause):
        _print(''.join(cause.held[: _sentence_index(cause)]))
        return _fail(_sentence(cause), status)
    if status < 0:
        name = signal.Signals(-status).name
        memory = ', as the system does when memory is exhausted' if -status == signal.SIGKILL else ''
        return _fail(f'{who} was ended by {name}{memory}; go on from the last checkpoint with --resume', 128 - status)
    last = next((found[1] for line in reversed(cause.held) if (found := _LAST_OF_TRACE.match(line))), '')
    cause.release()
    said = f'with {last.strip()}; its stack trace is above' if last else f'with status {status}'
    return _fail(f'{who} ended {said}', status)


def _likelihood(process: Process) -> int:
    """Rank of a failed process among the possible causes: 0 for a sentence, 3 for a connection that others closed."""
    if process.stopped_since or (_sentence(process) and process.status == 2):
        return 0
    if (process.status or 0) < 0 and -process.status != signal.SIGABRT:
        return 1
    return 3 if any(_CONSEQUENCE.search(line) for line in process.held) else 2


def _sentence_index(process: Process) -> int:
    return next((i for i in reversed(range(len(process.held))) if _SENTENCE.match(process.held[i])), -1)


def _sentence(process: Process) -> str:
    index = _sentence_index(process)
    return '' if index < 0 else ''.join(process.held[index:]).partition('error: ')[2].strip()


def _begins_end(text: str) -> bool:
    return bool(_TRACE.match(text) or _SENTENCE.match(text))


def _print(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _fail(sentence: str, status: int) -> int:
    _print(f'error: {sentence}\n')
    return status


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        sys.exit(_fail(f'{name}={text} is no number; give the number of machines, and which of them this is', 2))
    return int(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('', port))
        except OSError:
            return False
    return True


def _apart_but_not_left() -> None:
    """Put a started process into a group of its own, and end it when this one is killed (Linux)."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)


if __name__ == '__main__':
    sys.exit(main())
