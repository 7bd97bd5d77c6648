"""Digests of files, by which a copy is compared with what was written."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def blake2b_of(path: str | Path) -> str:
    """BLAKE2b of a file's content, 16 bytes in hexadecimal digits: of what this project writes itself."""
    return _digest(path, hashlib.blake2b(digest_size=16))


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits: as weights are published with it."""
    return _digest(path, hashlib.sha256())


def _digest(path: str | Path, digest: 'hashlib._Hash') -> str:
    # hashlib.file_digest is of Python 3.11
    with Path(path).open('rb') as file:
        while data := file.read(_BLOCK):
            digest.update(data)
    return digest.hexdigest()
