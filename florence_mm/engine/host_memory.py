"""Host memory between training steps."""

import ctypes
import os
import platform

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # of 64 bit systems; a larger one is refused
_LARGEST_TRIM_THRESHOLD = 2**31 - 1
_SETTINGS = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_MMAP_MAX_', 'MALLOC_TOP_PAD_')


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors for the next ones, instead of a return to the system.

    A step on the CPU frees its activations and the next asks for as much; glibc gives most of it back in between, and
    the system hands out cleared pages one by one (``tools/benchmarks/host_memory.py``). Tensors above 32 MiB still come
    and go. glibc's own environment variables go first, and other systems are left as they are.

    Returns:
        whether glibc accepted it.
    """
    if platform.libc_ver()[0] != 'glibc' or 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', ''):
        return False
    if any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
    )
