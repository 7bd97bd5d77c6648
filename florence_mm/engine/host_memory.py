"""Reuse of host memory between training steps."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # on 64 bit systems; larger values are refused
_LARGEST_TRIM_THRESHOLD = 2**31 - 1
_LEAST_MMAP_THRESHOLD = 2**17  # glibc's own
_SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_TOP_PAD_')


def keep_freed_memory() -> bool:
    """Make glibc keep the memory of freed tensors for new ones instead of returning it to the system.

    A step on the CPU frees its activations, and the next one allocates as much. By default glibc returns most of it in
    between, and the system then clears each page again (``tools/benchmarks/host_memory.py``). Tensors above 32 MiB are
    still returned. Nothing is changed if environment variables configure glibc's malloc, or without glibc.

    Returns:
        whether glibc accepted the settings.
    """
    return _is_ours_to_set() and _set_thresholds(_LARGEST_MMAP_THRESHOLD, _LARGEST_TRIM_THRESHOLD)


@contextmanager
def returning_freed_memory(keep_afterwards: bool) -> Iterator[None]:
    """Make glibc return freed tensors above 128 KiB to the system at once, where many that stay are made in between.

    Those that stay would lie between the freed ones, whose memory then fits no new tensor.

    Args:
        keep_afterwards: go on as after :func:`keep_freed_memory`; otherwise with the thresholds that glibc reaches by
            itself.
    """
    if not _is_ours_to_set():
        yield
        return
    _set_thresholds(_LEAST_MMAP_THRESHOLD, _LEAST_MMAP_THRESHOLD)
    try:
        yield
    finally:
        trim = _LARGEST_TRIM_THRESHOLD if keep_afterwards else 2 * _LARGEST_MMAP_THRESHOLD
        _set_thresholds(_LARGEST_MMAP_THRESHOLD, trim)


def _is_ours_to_set() -> bool:
    if platform.libc_ver()[0] != 'glibc' or 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', ''):
        return False
    return not any(name in os.environ for name in _SETTINGS)


def _set_thresholds(mmap: int, trim: int) -> bool:
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, mmap) and mallopt(_M_TRIM_THRESHOLD, trim))
