"""Members of a tar file and their offsets, with what damage has left; tarfile ends silently at a damaged header.

Formats are those of POSIX.1-2001 (ustar and pax), GNU tar and version 7. Not here: samples of several members
(``shard_samples``), writing (``shards``).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from florence_mm.errors import DataError, shown_path
from florence_mm.utils.files import FILE, kind_of_file

BLOCK = 512
DAMAGED, TRUNCATED, SPARSE = 'damaged header', 'truncated', 'sparse member'
_REGULAR = b'0\x007'
_NO_CONTENT = b'123456'  # links, devices, folders and pipes; what their size field says is no content
_PAX, _PAX_FOR_ALL, _LONG_NAME = b'x', b'g', b'L'
_SPARSE, _SPARSE_RECORD = b'S', b'GNU.sparse.'
_HAS_MORE = slice(504, 505)  # of a sparse block: whether the list of its pieces goes on in the next
_HAS_MORE_FIRST = slice(482, 483)
_LONGEST_HEADER = 1 << 20  # bytes of a long name or of pax records
_SCAN = 1 << 20
_DIGITS = 20  # of the largest size of a file that a pax record states
_COMPRESSED = ((b'\x1f\x8b', 'gzip'), (b'BZh', 'bzip2'), (b'\xfd7zXZ', 'xz'), (b'\x28\xb5\x2f\xfd', 'zstd'))
_MAGIC = re.compile(rb'ustar(\x00| )')
_PAX_RECORD = re.compile(rb'(\d{1,20}) ([^=\n]+)=')


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: as the tar has it; bytes that are not UTF-8 are surrogates, see :func:`os.fsdecode`.
        offset: place of its content in the tar, in bytes.
        size: bytes of the content.
    """

    name: str
    offset: int
    size: int


class Damage(NamedTuple):
    """A place from which a tar cannot be read as one.

    Attributes:
        offset: the first such byte. Members whose headers are damaged one after another are one place.
        reason: ``'damaged header'``, ``'truncated'`` if the file ends too early, or ``'sparse member'`` for a file of
            which GNU tar has left the holes out; those behind it are read.
    """

    offset: int
    reason: str


class _Header(NamedTuple):
    name: bytes
    size: int
    kind: bytes
    full: bool  # whether the name fills its field, so that a lost header may have had a longer one


def read_members(path: str | Path) -> Iterator[Member | Damage]:
    """Yield the files of a tar in their order, and each damage between them.

    A damaged header does not end the tar: the next header is looked for in blocks of 512 bytes. Folders and links are
    passed over. Zeros that something follows are damage too, and so is a missing end mark, as a killed writer leaves
    it.

    Args:
        path: a local tar without compression.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is compressed, or no ordinary file.
    """
    path = Path(path)
    descriptor = _open(path)
    try:
        start = os.pread(descriptor, 6, 0)
        for magic, name in _COMPRESSED:
            if start.startswith(magic):
                raise DataError(
                    f'{shown_path(path)} is compressed ({name}), and shards are read by offsets; decompress it'
                )
        yield from _members(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def states_size(header: bytes, size: int) -> bool:
    """Whether a block of 512 bytes can be the header of a member of so many bytes."""
    return len(header) == BLOCK and _number(header[124:136]) == size


def _open(path: Path) -> int:
    if not path.exists():
        raise FileNotFoundError(f'there is no tar {shown_path(path)}; correct the path')
    kind = kind_of_file(path.stat())
    if kind != FILE:
        raise DataError(f'{shown_path(path)} is {kind}; expected a tar file')
    return os.open(path, os.O_RDONLY)


def _members(descriptor: int, end: int) -> Iterator[Member | Damage]:
    place = 0
    name: bytes | None = None  # from a GNU long name or pax records, for the next member
    size: int | None = None
    after_damage = sparse = False
    while True:
        block = os.pread(descriptor, BLOCK, place)
        if block == bytes(BLOCK) and _only_zeros(descriptor, place, end):
            return
        header = _parse(block) if len(block) == BLOCK else None
        if header is None:
            if len(block) < BLOCK:
                yield Damage(place, TRUNCATED)
                return
            yield Damage(place, DAMAGED)
            found = _next_header(descriptor, place + BLOCK, end)
            if found is None:
                return
            place, name, size, after_damage, sparse = found, None, None, True, False
            continue
        content = place + BLOCK
        length = 0 if header.kind in _NO_CONTENT else header.size
        if size is not None and header.kind in _REGULAR:
            length = size
        if content + length > end:
            yield Damage(place, TRUNCATED)
            return
        if header.kind == _SPARSE:
            yield Damage(place, SPARSE)
            content = _behind_pieces(descriptor, block, content)
            name = size = None
        elif header.kind in (_PAX, _LONG_NAME) and length <= _LONGEST_HEADER:
            data = os.pread(descriptor, length, content)
            if header.kind == _LONG_NAME:
                name = data.split(b'\0', 1)[0]
            else:
                records = _pax_records(data)
                sparse = any(key.startswith(_SPARSE_RECORD) for key in records)
                name = records.get(b'path', name)
                stated = records.get(b'size', b'')
                size = int(stated) if stated.isdigit() and len(stated) <= _DIGITS else size
        elif header.kind != _PAX_FOR_ALL and header.kind != b'K':
            whole = header.name if name is None else name
            is_file = header.kind in _REGULAR and not whole.endswith(b'/')
            # behind damage a name of full length may be the beginning of one whose own header is lost
            if is_file and sparse:
                yield Damage(place, SPARSE)
            elif is_file and not (after_damage and name is None and header.full):
                yield Member(os.fsdecode(whole), content, length)
            name = size = None
            after_damage = sparse = False
        place = content + -(-length // BLOCK) * BLOCK


def _behind_pieces(descriptor: int, block: bytes, place: int) -> int:
    """Place behind the blocks that go on with the list of a sparse member's pieces, where its content begins."""
    more = block[_HAS_MORE_FIRST] not in (b'\0', b'')
    while more:
        more = os.pread(descriptor, BLOCK, place)[_HAS_MORE] not in (b'\0', b'')
        place += BLOCK
    return place


def _parse(block: bytes, strict: bool = False) -> _Header | None:
    """Read a header; None if it is none. ``strict``: version 7, which has no magic number, is none."""
    checksum = _number(block[148:156])
    # the field itself counts as spaces; old writers added the bytes with their signs
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if checksum is None or (checksum != total and checksum != total - 256 * sum(byte > 127 for byte in block)):
        return None
    magic = _MAGIC.match(block, 257)
    size = _number(block[124:136])
    if size is None or (strict and magic is None):
        return None
    name = block[:100].split(b'\0', 1)[0]
    prefix = block[345:500].split(b'\0', 1)[0] if magic and magic[1] == b'\0' else b''
    return _Header(prefix + b'/' + name if prefix else name, size, block[156:157], block[99] != 0)


def _number(field: bytes) -> int | None:
    """Read a number: octal digits, or with the first bit set its bytes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], 'big')
    digits = field.split(b'\0', 1)[0].strip()
    try:
        return int(digits or b'0', 8) if not digits.startswith((b'-', b'+')) else None
    except ValueError:
        return None


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    records, at = {}, 0
    while match := _PAX_RECORD.match(data, at):
        length = int(match[1])
        if length <= match.end() - at or at + length > len(data):
            break
        records[match[2]] = data[match.end() : at + length - 1]
        at += length
    return records


def _next_header(descriptor: int, place: int, end: int) -> int | None:
    """Find the next block that is a header, from ``place`` on."""
    while place < end:
        data = os.pread(descriptor, _SCAN, place)
        for match in _MAGIC.finditer(data):
            start = match.start() - 257
            block = data[start : start + BLOCK]
            if start >= 0 and start % BLOCK == 0 and len(block) == BLOCK and _parse(block, strict=True):
                return place + start
        place += _SCAN
    return None


def _only_zeros(descriptor: int, place: int, end: int) -> bool:
    while place < end:
        data = os.pread(descriptor, _SCAN, place)
        if data.strip(b'\0'):
            return False
        place += len(data)
    return True
