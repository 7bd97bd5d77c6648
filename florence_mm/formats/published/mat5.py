"""Structure of MATLAB files of version 5 to 7.2, checked before scipy reads them.

Scipy's reader trusts sizes in the file: of a damaged one it may crash the process, or never end. Source of the layout:
MathWorks, "MAT-File Format", chapter 1.
"""

import math
import struct
import zlib
from typing import NamedTuple

_HEADER = 128
_LARGEST = 2**30  # bytes of an unpacked variable
_DEEPEST = 20  # arrays inside of arrays
_MATRIX, _PACKED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
#: Bytes of a value by its type.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_CELL, _STRUCT, _CHARACTERS, _NUMBERS = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800


class _Element(NamedTuple):
    kind: int
    start: int
    size: int
    end: int  # where the next one begins


def check_mat5(data: bytes) -> None:
    """Check that the sizes, types and shapes of all variables of a file agree.

    Args:
        data: the file.

    Raises:
        ValueError: they do not, or the file is of another kind; the message is a predicate.
    """
    order = {b'IM': '<', b'MI': '>'}.get(data[126:128])
    if order is None or 0 in data[:4]:  # zeros there are the mark of version 4
        raise ValueError('is no MATLAB file of version 5 to 7.2')
    at = _HEADER
    while at < len(data):
        element = _element(data, at, len(data), order)
        if element.kind == _PACKED:
            inside = _unpacked(data[element.start : element.start + element.size])
            _check_matrix(inside, _element(inside, 0, len(inside), order), order)
        else:
            _check_matrix(data, element, order)
        at = element.end


def _damaged() -> ValueError:
    return ValueError('is damaged: its sizes do not agree')


def _element(data: bytes, at: int, limit: int, order: str) -> _Element:
    """Read the tag of an element: its type, and where its bytes are."""
    if at + 8 > limit:
        raise _damaged()
    kind, size = struct.unpack_from(f'{order}II', data, at)
    if kind >> 16:  # up to four bytes beside the tag
        found = _Element(kind & 0xFFFF, at + 4, kind >> 16, at + 8)
        whole = found.size <= 4
    else:
        padding = 0 if kind == _PACKED else -size % 8
        found = _Element(kind, at + 8, size, at + 8 + size + padding)
        whole = found.start + size <= limit
    if not whole:
        raise _damaged()
    return found


def _unpacked(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, _LARGEST)
    except zlib.error:
        raise _damaged() from None
    if not reader.eof:
        raise _damaged()
    return found


def _check_matrix(data: bytes, matrix: _Element, order: str, depth: int = 0) -> None:
    if matrix.kind != _MATRIX or depth > _DEEPEST:
        raise _damaged()
    at, limit = matrix.start, matrix.start + matrix.size

    def following(*kinds: int) -> _Element:
        nonlocal at
        element = _element(data, at, limit, order)
        if element.kind not in kinds:
            raise _damaged()
        at = element.end
        return element

    if not matrix.size:  # an empty array
        return
    flags = following(_UINT32)
    sizes = following(_INT32)
    following(_INT8)
    if flags.size != 8 or sizes.size < 8 or sizes.size % 4:
        raise _damaged()
    (bits,) = struct.unpack_from(f'{order}I', data, flags.start)
    shape = struct.unpack_from(f'{order}{sizes.size // 4}i', data, sizes.start)
    count, kind = math.prod(shape), bits & 0xFF
    # a value has a byte at least, and a tag of eight bytes where it is an array
    if min(shape) < 0 or kind in (_CELL, _STRUCT) and count * 8 > limit:
        raise _damaged()
    if kind == _STRUCT:
        width, names = following(_INT32), following(_INT8)
        (length,) = struct.unpack_from(f'{order}i', data, width.start) if width.size == 4 else (0,)
        if length <= 0 or names.size % length:
            raise _damaged()
        count *= names.size // length
    if kind in (_CELL, _STRUCT):
        for _ in range(count):
            _check_matrix(data, following(_MATRIX), order, depth + 1)
    elif kind == _CHARACTERS or kind in _NUMBERS:
        for _ in range(2 if bits & _COMPLEX else 1):
            values = following(*_BYTES)
            whole = values.size % _BYTES[values.kind] == 0
            # a letter of UTF-8 has several bytes
            held = values.size // _BYTES[values.kind]
            if not whole or (held < count if kind == _CHARACTERS else held != count):
                raise _damaged()
