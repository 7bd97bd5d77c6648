"""Reuse of host memory between training steps."""

import ctypes
import os
import platform

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # on 64 bit systems; larger values are refused
_LARGEST_TRIM_THRESHOLD = 2**31 - 1
_SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_TOP_PAD_')


def keep_freed_memory() -> bool:
    """Make glibc keep the memory of freed tensors for new ones instead of returning it to the system.

    A step on the CPU frees its activations, and the next one allocates as much. By default glibc returns most of it in
    between, and the system then clears each page again (``tools/benchmarks/host_memory.py``). Tensors above 32 MiB are
    still returned. Nothing is changed if environment variables configure glibc's malloc, or without glibc.

    Returns:
        whether glibc accepted the settings.
    """
    if platform.libc_ver()[0] != 'glibc' or 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', ''):
        return False
    if any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
    )
