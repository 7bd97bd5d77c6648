"""Locks of files, which end with the process that holds them."""

import errno
from contextlib import suppress

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

_HELD = (errno.EACCES, errno.EAGAIN)


def try_lock(descriptor: int) -> bool:
    """Lock an open file against other openings of it, also those of this process; False if one of them has the lock.

    On a system or file system without locks every try succeeds.

    Args:
        descriptor: the file's descriptor; the lock ends when it is closed.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def unlock(descriptor: int) -> None:
    """End the lock of an open file also for processes that were forked meanwhile and have the file open."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)
