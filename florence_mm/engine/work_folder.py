"""The work folder of a training: one run at a time, and no other run's checkpoints overwritten."""

import errno
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook

from florence_mm.errors import UsageError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LOCK_NAME = '.training.lock'
#: Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_OF_A_RUN = re.compile(r'(?:iter|epoch)_\d+\.pth|best_.+\.pth')


@contextmanager
def alone_in_work_dir(runner: Any) -> Iterator[None]:
    """Keep other runs out of a runner's work folder, and this one out of another run's; the main process does it.

    Raises:
        UsageError: another run trains there, or left its checkpoints and is not resumed.
    """
    if not is_main_process():
        yield
        return
    locked = lock(runner.work_dir)
    try:
        if not runner._has_loaded:
            folders = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir]
            elsewhere = [str(Path(folder) / Path(runner.work_dir).name) for folder in folders]
            require_own([runner.work_dir, *elsewhere], runner._load_from if runner._resume else None)
        yield
    finally:
        if locked is not None:
            locked.close()


@master_only
def dump_beside_log(runner: Any) -> None:
    """Write the config of a test to the folder of its log, as the work folder may have that of a training."""
    runner.cfg.dump(str(Path(runner.log_dir) / Path(runner.cfg.filename or f'{runner.timestamp}.py').name))


def lock(folder: str | Path) -> IO[str] | None:
    """Lock a work folder for this process until it ends, in whatever way, or the returned file is closed.

    The lock is the system's (``fcntl``), so that none is left by a process that was killed, and data-loading workers do
    not hold it.

    Args:
        folder: the work folder; it is created.

    Returns:
        the open lock file; None where the file system has no locks.

    Raises:
        UsageError: another run trains in the folder; the message names it.
    """
    if fcntl is None:
        return None
    path = Path(folder) / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open('a+')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        other = file.read().strip()
        file.close()
        if error.errno in _NO_LOCKS:
            return None
        raise UsageError(
            f'work_dir {folder} is in use by another run ({other or "which has not named itself"}); wait for its end '
            'or choose another --work-dir'
        ) from None
    file.truncate(0)
    file.write(
        f'process {os.getpid()} on {socket.gethostname()} since {time.strftime("%Y-%m-%d %H:%M:%S")}: '
        f'{shlex.join(sys.argv)[:300]}\n'
    )
    file.flush()
    return file


def require_own(folders: list[str], resumed: str | None) -> None:
    """Refuse to train into folders that hold the checkpoints of another run.

    Args:
        folders: where the run writes its checkpoints.
        resumed: the checkpoint from which the run goes on, None for a new run.

    Raises:
        UsageError: a folder has checkpoints, and the run does not go on from one in it.
    """
    for folder in dict.fromkeys(folders):
        pointed_to = (Path(folder) / 'last_checkpoint').is_file()
        found = [path for path in Path(folder).glob('*.pth') if pointed_to or _OF_A_RUN.match(path.name)]
        if not found:
            continue
        newest = max(found, key=lambda path: (path.stat().st_mtime, path.name)).name
        if resumed is None:
            raise UsageError(
                f'work_dir {folder} has checkpoints of another run ({newest}), which this run would replace; add '
                '--resume to go on with that run, or choose another --work-dir'
            )
        if not any(_same_file(resumed, path) for path in found):
            raise UsageError(
                f'work_dir {folder} has checkpoints of another run ({newest}) than the one to resume ({resumed}); '
                'choose another --work-dir, or resume from a checkpoint in this one'
            )


def _same_file(name: str, path: Path) -> bool:
    return '://' not in name and Path(name).expanduser().exists() and path.samefile(Path(name).expanduser())
