"""Reading samples of a set of shards: a few shards are kept open, local ones or those of a cache."""

import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mmengine.logging import print_log

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.digests import blake2b_of

from .shard_cache import ShardCache
from .shards import SET_FILE, Place, Shard, ShardIndex, ShardSet, index_path, read_range
from .tar import BLOCK, states_size

_OPEN = 64
#: Seconds for which a file of a cache stays open: a file that was removed takes its room as long as it is open.
_FRESH = 2.0
_ATTEMPTS = 20


class RawMembers(NamedTuple):
    """What is read of a sample.

    Attributes:
        shard: its shard.
        number: of the sample in the shard.
        place: where its members are.
        image, text: their content.
    """

    shard: Shard
    number: int
    place: Place
    image: bytes
    text: bytes


class _Open(NamedTuple):
    shard: Shard
    path: Path
    index: ShardIndex
    file: BinaryIO
    since: float


class OpenShards:
    """Reader of a set of shards; whoever shares it after a fork reads on with the same files.

    Args:
        shards (ShardSet): The set.
        cache (ShardCache | None): Of a set in a store; None: the set is a local folder.
    """

    def __init__(self, shards: ShardSet, cache: ShardCache | None = None) -> None:
        self.shards, self.cache = shards, cache
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._known: set[str] = set()
        self._compared: set[str] = set()  # shards whose whole digest this process has compared
        self._written = None if cache else _time_of(Path(shards.root) / SET_FILE)

    def __getstate__(self) -> dict:
        # files cannot be pickled, and a memory map would be as its content
        return {**self.__dict__, '_open': OrderedDict()}

    def read(self, shard: int, number: int, originals: bool = False) -> RawMembers:
        """Read the members of a sample.

        Args:
            shard: number of the shard.
            number: of the sample in it.
            originals: count only samples that are not augmented.

        Raises:
            UsageError: the shard is missing, cut off or damaged, or cannot be fetched.
        """
        opened = self._opened(shard)
        number = int(opened.index.originals[number]) if originals else number
        place, descriptor = opened.index[number], opened.file.fileno()
        try:
            image = self._member(opened, descriptor, place.image_offset, place.image_size)
            text = self._member(opened, descriptor, place.text_offset, place.text_size)
        except DataError:
            raise UsageError(f'{opened.path} was cut off while it was read; copy it again') from None
        except OSError as error:
            raise UsageError(f'{opened.path} cannot be read ({error.strerror}); check the disk') from error
        return RawMembers(opened.shard, number, place, image, text)

    def _member(self, opened: _Open, descriptor: int, offset: int, size: int) -> bytes:
        """Read a member, of a local shard with the header before it, which says its size unless the tar has changed."""
        unchecked = self.cache is not None or offset < BLOCK
        if not unchecked and not states_size(os.pread(descriptor, BLOCK, offset - BLOCK), size):
            self._compare_digest(opened.shard, opened.path)
        return read_range(descriptor, offset, size)

    def _opened(self, number: int) -> _Open:
        opened, now = self._open.get(number), time.monotonic()
        if opened is not None and (self.cache is None or now - opened.since < _FRESH):
            self._open.move_to_end(number)
            return opened
        for other, one in list(self._open.items()):
            if other == number or len(self._open) >= _OPEN or self.cache and now - one.since >= _FRESH:
                self._open.pop(other).file.close()
        opened = self._open[number] = self._open_anew(self.shards[number])
        return opened

    def _open_anew(self, shard: Shard) -> _Open:
        for _ in range(_ATTEMPTS):
            path = Path(self.shards.root) / shard.name if self.cache is None else self.cache.get(shard)
            try:
                index, file = ShardIndex.read(path), path.open('rb', buffering=0)
            except FileNotFoundError:
                if self.cache is not None:  # another process needed its room
                    continue
                raise UsageError(
                    f'{path} is missing, or its index is, which {SET_FILE} beside it names; copy the set again'
                ) from None
            except DataError as error:  # not of a sample, which could be skipped
                raise UsageError(str(error)) from None
            _check(shard, path, index, os.fstat(file.fileno()).st_size)
            self._check_digest(shard, path)
            return _Open(shard, path, index, file, time.monotonic())
        raise UsageError(
            f'{shard.name} was removed from the cache {self.cache.folder} before it could be read, {_ATTEMPTS} times; '
            'raise max_gb'
        )

    def _check_digest(self, shard: Shard, path: Path) -> None:
        """Check, once, that a local index is the one of the set, and a newer tar too; a cache has checked both."""
        if self.cache is None and shard.name not in self._known:
            if blake2b_of(index_path(path)) != shard.index_digest:
                raise UsageError(
                    f'the index of {path} is not the one that {SET_FILE} names by its digest; copy the set again'
                )
            if self._written is not None and path.stat().st_mtime_ns > self._written:
                if not self._compared:
                    print_log(
                        f'{path} is newer than {SET_FILE} beside it; shards that are so are read once in each process, '
                        'to compare their digests',
                        'current',
                    )
                self._compare_digest(shard, path)
            self._known.add(shard.name)

    def _compare_digest(self, shard: Shard, path: Path) -> None:
        if shard.name in self._compared:
            return
        if blake2b_of(path) != shard.digest:
            raise UsageError(
                f'{path} has changed since {SET_FILE} beside it was written, as its digest is another; copy it again, '
                'or write the set again'
            )
        self._compared.add(shard.name)


def _time_of(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None if it is not there any more."""
    return path.stat().st_mtime_ns if path.exists() else None


def _check(shard: Shard, path: Path, index: ShardIndex, size: int) -> None:
    if size != shard.bytes:
        raise UsageError(
            f'{path} has {size} bytes, and {SET_FILE} says {shard.bytes}; it was cut off or changed: copy it again'
        )
    try:
        index.check_fits(size)
    except DataError as error:
        raise UsageError(str(error)) from None
    found = len(index), len(index) - len(index.originals)
    if found != (shard.samples, shard.augmented):
        raise UsageError(
            f'the index of {path} has {found[0]} samples, {found[1]} of them augmented, and {SET_FILE} says '
            f'{shard.samples} and {shard.augmented}; copy the set again'
        )
