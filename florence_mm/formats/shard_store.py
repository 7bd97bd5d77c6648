"""Fetching of whole files from a store (fsspec: s3://, gs://, hf://, memory:// …), with retries and a time limit.

A transfer that makes no progress for some seconds is given up and tried again, as is one that ends too early or whose
content is another. After the last attempt one sentence says what happened.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from florence_mm.errors import UsageError

_CHUNK = 1 << 20
_LONGEST_PAUSE = 30.0


class _Failed(Exception):
    """An attempt that failed; the text is the reason. ``final``: another one would fail too."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class Store:
    """A folder of a store.

    Attributes:
        root: its address, such as ``'s3://bucket/folder'``.
        options: of the fsspec file system, such as ``dict(anon=True)``.
        retries: attempts after the first that failed.
        seconds: longest time without progress.
        pause: seconds before the second attempt, doubled before each further one.
    """

    root: str
    options: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 5
    seconds: float = 60.0
    pause: float = 0.5

    def address(self, name: str) -> str:
        """Address of a file."""
        return f'{self.root.rstrip("/")}/{name}'

    def read(self, name: str) -> bytes:
        """Read a small file into memory.

        Raises:
            UsageError: every attempt failed.
        """
        return self._retried(name, lambda: self._transfer(name, None, None)[0])

    def fetch(self, name: str, size: int | None, digest: str, target: Callable[[], Any]) -> None:
        """Fetch a file whose digest is known.

        Args:
            name: of the file.
            size: of its content in bytes; None: any.
            digest: BLAKE2b of 16 bytes, in hexadecimal.
            target: makes the context of an attempt, which gives the path to write to and is left with an error if the
                attempt fails.

        Raises:
            UsageError: every attempt failed: the store could not be read, stalled, or gave other bytes.
        """

        def attempt() -> None:
            with target() as path:
                _, got, found = self._transfer(name, path, size)
                if size is not None and got != size:
                    raise _Failed(f'it gave {got} of {size} bytes')
                if found != digest:
                    raise _Failed('its content is not that of the set: the digest in index.json is another')

        self._retried(name, attempt)

    def _retried(self, name: str, attempt: Callable[[], Any]) -> Any:
        start, pause, reason = time.monotonic(), self.pause, ''
        for number in range(self.retries + 1):
            if number:
                time.sleep(min(pause, _LONGEST_PAUSE))
                pause *= 2
            try:
                return attempt()
            except _Failed as error:
                reason = str(error)
                if error.final:
                    break
        seconds = time.monotonic() - start
        raise UsageError(
            f'{self.address(name)} cannot be fetched: {reason} ({number + 1} attempts in {seconds:.0f} s); check '
            'the store, the network and the disk, and go on with --resume'
        )

    def _transfer(self, name: str, path: Path | None, size: int | None) -> tuple[bytes, int, str]:
        """Copy a file to ``path``, or into memory, in a thread that can be left if it stalls."""
        transfer = _Transfer(self, name, path, size)
        threading.Thread(target=transfer.run, name=f'fetch {name}', daemon=True).start()
        seen, since = -1, time.monotonic()
        while not transfer.ended.wait(min(0.5, self.seconds / 4)):
            if transfer.done != seen:
                seen, since = transfer.done, time.monotonic()
            elif time.monotonic() - since > self.seconds:
                transfer.left = True
                raise _Failed(f'it stalled for {self.seconds:g} s after {transfer.done} bytes')
        if transfer.error is not None:
            raise _Failed(transfer.error, transfer.final)
        return b''.join(transfer.parts), transfer.done, transfer.digest.hexdigest()


class _Transfer:
    def __init__(self, store: Store, name: str, path: Path | None, size: int | None) -> None:
        self.store, self.name, self.path, self.size = store, name, path, size
        self.done, self.left, self.error, self.final = 0, False, None, False
        self.parts: list[bytes] = []
        self.digest = hashlib.blake2b(digest_size=16)
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            self._copy()
        except FileNotFoundError:
            self.error = 'there is no such file'
        except Exception as error:  # botocore's, aiohttp's and gcsfs's errors have no common base
            self.error = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
        finally:
            self.ended.set()

    def _copy(self) -> None:
        address = self.store.address(self.name)
        try:
            # anew for each transfer: file systems of fsspec do not survive a fork, and each thread's would be kept
            system, path = fsspec.core.url_to_fs(address, skip_instance_cache=True, **self.store.options)
        except (ImportError, TypeError, ValueError):  # a package that is missing, an unknown option or scheme
            self.final = True
            raise
        with system.open(path, 'rb', block_size=4 * _CHUNK) as source:
            if self.path is None:
                self._read(source, self.parts.append)
            else:
                descriptor = os.open(self.path, os.O_WRONLY)
                with os.fdopen(descriptor, 'wb') as target:
                    self._read(source, target.write)

    def _read(self, source: Any, write: Callable[[bytes], Any]) -> None:
        while not self.left:
            data = source.read(_CHUNK)
            if not data or self.left:
                return
            self.done += len(data)
            if self.size is not None and self.done > self.size:
                return
            self.digest.update(data)
            write(data)
