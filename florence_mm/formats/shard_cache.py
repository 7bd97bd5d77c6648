"""A bounded folder of whole shards of a store, which several processes share.

Files are named by their digests, so that a name is never of other content, and have their names only when they are
whole. The shards that were not used for longest are removed when room is needed. Processes take turns by locks, which
end with the process that holds them; what a killed one has left half is removed.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from florence_mm.errors import UsageError
from florence_mm.utils.files import is_temporary, replacing
from florence_mm.utils.locks import try_lock, unlock

from .shard_index import index_path
from .shard_store import Store
from .shards import Shard

_POLL = 0.02  # seconds
_STALE = 5.0  # seconds without a write after which a temporary file may be of a killed process
_AHEAD = 4  # shards fetched at once before they are asked for


class ShardCache:
    """Whole shards of a store in a local folder.

    Args:
        store (Store): Where the shards are.
        folder (Path): Of the cache; several sets and processes may share it.
        max_bytes (int): Bound of the sizes of all files in it, those being fetched included.
    """

    def __init__(self, store: Store, folder: str | Path, max_bytes: int) -> None:
        self.store, self.folder, self.max_bytes = store, Path(folder).absolute(), max_bytes
        self._wanted: deque[Shard] = deque()
        self._threads: list[threading.Thread] = []
        self._owner = os.getpid()

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_threads': [], '_wanted': deque()}

    def path(self, shard: Shard) -> Path:
        """Path that a shard has in the folder, fetched or not."""
        return self.folder / f'{shard.digest}.tar'

    def get(self, shard: Shard) -> Path:
        """Fetch a shard and its index unless they are there, and return the shard's path.

        The file may be removed at any time when other shards need its room; who cannot open it asks again.

        Raises:
            UsageError: the store cannot be read, or the shard is larger than the cache.
        """
        path = self.path(shard)
        with suppress(FileNotFoundError):
            os.utime(path)  # the time of its last use
            return path
        if shard.bytes > self.max_bytes:
            raise UsageError(
                f'{self.store.address(shard.name)} has {shard.bytes} bytes, more than the {self.max_bytes} of the '
                f'cache {self.folder}; raise max_gb'
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(f'.{shard.digest[:2]}.lock'):
            if not path.exists():  # else another process has fetched it meanwhile
                index, name = index_path(path), index_path(shard.name).name
                # first, so that whoever finds a shard finds its index
                self.store.fetch(name, None, shard.index_digest, lambda: self._placing(index, 0))
                self.store.fetch(shard.name, shard.bytes, shard.digest, lambda: self._placing(path, shard.bytes))
        return path

    def fetch_ahead(self, shards: Iterable[Shard]) -> None:
        """Fetch shards in threads of this process, in place of those that were asked for so before.

        An error is left to :meth:`get`, which meets it again.
        """
        if self._owner != os.getpid():  # threads do not survive a fork
            self._threads, self._owner = [], os.getpid()
        self._wanted = deque(one for one in shards if not self.path(one).exists())
        self._threads = [one for one in self._threads if one.is_alive()]
        for _ in range(min(len(self._wanted), _AHEAD - len(self._threads))):
            thread = threading.Thread(target=self._fetch_wanted, name='fetch ahead', daemon=True)
            self._threads.append(thread)
            thread.start()

    def _fetch_wanted(self) -> None:
        while True:
            try:
                shard = self._wanted.popleft()
            except IndexError:
                return
            with suppress(UsageError, OSError):
                self.get(shard)

    @contextmanager
    def _placing(self, path: Path, size: int) -> Iterator[Path]:
        """Yield a temporary file that takes ``size`` bytes of the bound and becomes ``path`` if nothing raises."""
        with ExitStack() as stack:
            with self._locked('.room.lock'):
                self._make_room(size)
                temporary = stack.enter_context(replacing(path))
                file = stack.enter_context(temporary.open('wb'))
                file.truncate(size)
                try_lock(file.fileno())  # which tells it from what a killed process has left
                stack.callback(unlock, file.fileno())
            yield temporary

    def _make_room(self, size: int) -> None:
        while True:
            total, shards = 0, []
            for entry in os.scandir(self.folder):
                with suppress(FileNotFoundError):  # renamed meanwhile, and counted by the next process
                    status = entry.stat()
                    if is_temporary(entry.name) and _is_left(entry.path, status):
                        Path(entry.path).unlink()
                        continue
                    total += status.st_size
                    if entry.name.endswith('.tar'):
                        shards.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
            for _, bytes_, path in sorted(shards):
                if total + size <= self.max_bytes:
                    break
                index = index_path(path)
                total -= bytes_ + (index.stat().st_size if index.exists() else 0)
                path.unlink(missing_ok=True)
                index.unlink(missing_ok=True)
            if total + size <= self.max_bytes or not _has_transfers(self.folder):
                return
            time.sleep(_POLL)  # until other processes' shards are whole, and can be removed

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            while not try_lock(descriptor):
                time.sleep(_POLL)
            yield
        finally:
            unlock(descriptor)
            os.close(descriptor)


def _is_left(path: str, status: os.stat_result) -> bool:
    """Whether a temporary file is of a process that was killed."""
    if time.time() - status.st_mtime < _STALE:
        return False
    with Path(path).open('rb') as file:
        return try_lock(file.fileno())


def _has_transfers(folder: Path) -> bool:
    return any(map(is_temporary, os.listdir(folder)))  # noqa: PTH208
