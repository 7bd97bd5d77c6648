"""Completeness of JPEG files: libjpeg fills what is missing with grey or a blur, and only prints a warning."""

import av
import numpy as np

# ITU-T T.81, table B.1: progressive DCT, Huffman coding
_PROGRESSIVE = (0xC2, 0xC6)
_START_OF_FRAME = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def is_jpeg(data: bytes) -> bool:
    """Whether the data begin as a JPEG file does."""
    return data.startswith(b'\xff\xd8')


def lacks_end_mark(data: bytes) -> bool:
    """Whether a JPEG file ends before its first scan, or has no end marker after the scan's start."""
    _, scan = _headers(data)
    return scan is None or data.find(b'\xff\xd9', scan) < 0


def ends_early(data: bytes, img: np.ndarray) -> bool:
    """Whether the scans of a JPEG file end before its last block, although an end marker follows.

    Baseline files are looked at only if a corner of the decoded image is flat, as libjpeg fills missing blocks with
    the colour of the last one; progressive files always. FFmpeg then reads the scans at an eighth of the size, which
    takes a quarter to two fifths of the time of decoding. A cut in the last thirty bytes is not noticed.

    Args:
        data (bytes): The file's content.
        img (np.ndarray): ``(H, W, C)``, the decoded image, turned or not.
    """
    frame, _ = _headers(data)
    if frame not in _PROGRESSIVE and not any(
        (corner == corner[:1, :1]).all() for corner in (img[:4, :4], img[:4, -4:], img[-4:, :4], img[-4:, -4:])
    ):
        return False
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


def _headers(data: bytes) -> tuple[int | None, int | None]:
    """Marker of the frame header and offset of the first scan; None for what the data do not reach.

    Walks over the segments, as an EXIF thumbnail has markers of its own.
    """
    at, frame = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return frame, at
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _START_OF_FRAME:
            frame = marker
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return frame, None
