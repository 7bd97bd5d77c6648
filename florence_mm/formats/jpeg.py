"""Completeness of JPEG files: libjpeg fills what is missing with grey or a blur, and only prints a warning.

Markers and segments are those of ITU-T T.81, annex B.
"""

import re
from collections.abc import Iterator

import numpy as np

_PROGRESSIVE = (0xC2, 0xC6)
_START_OF_FRAME = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_START_OF_SCAN = 0xDA
_EXIF, _EXIF_START = 0xE1, b'Exif\0\0'
#: how the data of a file begin
JPEG_START = b'\xff\xd8'
# in the data of a scan, 0xFF is followed by 0 or is a restart marker
_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')


def lacks_end_mark(data: bytes) -> bool:
    """Whether a JPEG file ends before its first scan, or has no end marker after the scan's start."""
    scan = next((at for marker, at in _segments(data) if marker == _START_OF_SCAN), None)
    return scan is None or data.rfind(b'\xff\xd9') < scan  # from the end, where it is


def ends_early(data: bytes, img: np.ndarray, reduction: int = 1) -> bool:
    """Whether the scans of a JPEG file end before its last block, although an end marker follows.

    A progressive file must have all scans. FFmpeg then reads the scans at an eighth of the size, which takes half to
    three quarters of the time of decoding: those of every progressive file, and of a baseline file if the last corner
    of the image (any corner, if EXIF may turn it) is flat, as libjpeg fills missing blocks with the colour of the last
    one. A cut in the last thirty bytes is not noticed.

    Args:
        data (bytes): The file's content.
        img (np.ndarray): ``(H, W, C)``, the decoded image, turned or not.
        reduction (int): 1, 2 or 4: the size of the whole image divided by that of ``img``.
    """
    frame = next((marker for marker, _ in _segments(data) if marker in _START_OF_FRAME), None)
    if frame in _PROGRESSIVE:
        if _lacks_scans(data):
            return True
    elif not _has_flat_corner(img, 8 // reduction, turned=exif_segment(data) is not None):
        return False
    import av  # only here: it takes a third of a second

    decoder = av.CodecContext.create('mjpeg', 'r')
    decoder.thread_count = 1
    decoder.options = {'err_detect': 'explode', 'lowres': '3'}
    try:
        decoder.decode(av.Packet(data))
    except av.error.InvalidDataError:
        return True
    except av.error.FFmpegError:  # a kind that FFmpeg does not know, such as arithmetic coding
        return False
    return False


def stored_size(data: bytes) -> tuple[int, int] | None:
    """Read height and width from the frame header of a JPEG file; None if it has none, or leaves the height open."""
    for marker, at in _segments(data):
        if marker in _START_OF_FRAME:
            height, width = (int.from_bytes(data[at + start : at + start + 2], 'big') for start in (5, 7))
            return (height, width) if height and width else None
        if marker == _START_OF_SCAN:
            return None
    return None


def exif_segment(data: bytes) -> bytes | None:
    """Return the content of a JPEG file's EXIF segment, which comes before its scans, or None."""
    for marker, at in _segments(data):
        if marker == _EXIF and data.startswith(_EXIF_START, at + 4):
            return data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], 'big')]
        if marker == _START_OF_SCAN:
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers of the segments before and between scans with their offsets; an EXIF thumbnail is inside a segment."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:  # the end; another picture may follow
            return
        yield marker, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        if marker == _START_OF_SCAN:
            following = _MARKER.search(data, at)
            at = following.start() if following else len(data)


def _lacks_scans(data: bytes) -> bool:
    """Whether a coefficient of a progressive file lacks its last bits, or one of the first component is missing."""
    bits: dict[int, dict[int, int]] = {}  # component: coefficient: bits that are still to come
    first = None
    for marker, at in _segments(data):
        if marker in _START_OF_FRAME and at + 11 <= len(data):
            first = data[at + 10]
        elif marker == _START_OF_SCAN:
            count = data[at + 4]
            header = data[at + 5 : at + 8 + 2 * count]
            if len(header) < 2 * count + 3:
                return True
            start, end, low = header[2 * count], header[2 * count + 1], header[2 * count + 2] & 15
            for component in header[: 2 * count : 2]:
                bits.setdefault(component, {}).update(dict.fromkeys(range(start, end + 1), low))
    return any(any(left.values()) for left in bits.values()) or len(bits.get(first, ())) < 64


def _has_flat_corner(img: np.ndarray, block: int, turned: bool) -> bool:
    """Whether the corner of the last block of pixels, or if the image may be turned one of all corners, is flat."""
    height, width = (min(4, (size - 1) % block + 1) for size in img.shape[:2])
    bottom, right = img.shape[0] - height, img.shape[1] - width
    for y in (0, bottom) if turned else (bottom,):
        for x in (0, right) if turned else (right,):
            # most corners have two pixels that differ, and comparing all of them takes long for small images
            if img[y, x, 0] == img[y + height - 1, x + width - 1, 0]:
                corner = img[y : y + height, x : x + width]
                if (corner == corner[:1, :1]).all():
                    return True
    return False
