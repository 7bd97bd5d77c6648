import platform
import resource
import subprocess
import sys

import pytest

from florence_mm.engine import host_memory
from florence_mm.engine.host_memory import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='runs where the C library is glibc')
SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_TOP_PAD_', 'GLIBC_TUNABLES')


# in a new process, where nothing was freed before; pages that the system hands out in steps of 120 MiB after the first
STEPS = """
import ctypes, resource, runpy, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages, of which a few would do
if sys.argv[2] == 'kept':
    assert runpy.run_path(sys.argv[1])['keep_freed_memory']()
counts = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [b'1' * (12 * 2**20) for _ in range(10)]
    del held
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(counts[1:]))
"""


def test_steps_ask_for_their_memory_once(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def faults(how):
        line = [sys.executable, '-c', STEPS, host_memory.__file__, how]
        return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    pages = 4 * 120 * 2**20 // resource.getpagesize()
    assert faults('as it is') > 0.9 * pages
    assert faults('kept') < 0.01 * pages


@pytest.mark.parametrize(('name', 'value'), [(SETTINGS[0], '1000'), ('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1')])
def test_settings_of_the_user_go_first(monkeypatch, name, value):
    def refuse(*_):
        raise AssertionError('mallopt was looked up')

    monkeypatch.setenv(name, value)
    monkeypatch.setattr(host_memory.ctypes, 'CDLL', refuse)
    assert keep_freed_memory() is False


def test_other_libraries_are_left_alone(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host_memory.platform, 'libc_ver', lambda: ('', ''))
    assert keep_freed_memory() is False


@pytest.mark.parametrize(('device', 'calls'), [('cpu', 1), ('cuda', 0)])
def test_runner_keeps_it_without_an_accelerator(train, monkeypatch, device, calls):
    from florence_mm.engine import runner

    seen = []
    monkeypatch.setattr(runner, 'get_device', lambda: device)
    monkeypatch.setattr(runner, 'keep_freed_memory', lambda: seen.append(device))
    train()
    assert len(seen) == calls
