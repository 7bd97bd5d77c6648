"""What OpenCV leaves out of some image formats: which value is white, transparency, what the values of TIFF mean."""

import re
from io import BytesIO

import numpy as np
from PIL import Image

#: What Pillow raises for a file without an image's header. Its readers promise no kind of error for damaged ones: AVIF
#: raises RuntimeError, JPEG 2000 OverflowError, SPIDER AttributeError.
NO_HEADER = (
    *(OSError, SyntaxError, ValueError, RuntimeError, ArithmeticError, LookupError, TypeError, AttributeError),
    Image.DecompressionBombError,
)
PNG_START = b'\x89PNG\r\n\x1a\n'
TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# tags of TIFF 6.0
_BITS, _PHOTOMETRIC, _ORIENTATION, _EXTRA_SAMPLES = 258, 262, 274, 338
_MIN_IS_WHITE, _LAB = 0, (8, 9, 10)
_UNKNOWN, _PREMULTIPLIED, _ALPHA = 0, 1, 2
_ANYMAP = re.compile(rb'P([2356])(?:\s+(?:#[^\n]*\n\s*)*(\d+)){2}\s+(?:#[^\n]*\n\s*)*(\d+)\s')
_ANYMAP_7 = re.compile(rb'P7\n(?:[^\n]*\n)*?\s*MAXVAL\s+(\d+)\s')
#: starts of files that people take for pictures, at an offset, and what they are
_OTHERS = (
    (4, (b'ftypheic', b'ftypheix', b'ftyphevc', b'ftypheim', b'ftypmif1', b'ftypmsf1'), 'HEIC'),
    (0, (b'\xff\x0a', b'\0\0\0\x0cJXL '), 'JPEG XL'),
    (0, (b'%PDF',), 'PDF'),
    (0, (b'8BPS',), 'Photoshop'),
    (0, (b'%!PS', b'\xc5\xd0\xd3\xc6'), 'PostScript'),
)
#: formats that OpenCV decodes, and TGA, for which Pillow takes other files too
_READ = ('AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'TGA', 'TIFF', 'WEBP')


def correct_tiff(img: np.ndarray, data: bytes) -> np.ndarray:
    """Give the pixels of a TIFF the meaning that its header states; OpenCV mixes up some.

    libtiff multiplies colours with a transparency of 8 bits, and turns some of the files that are stored turned; these
    are decoded by Pillow. A fourth channel of unknown meaning, such as infrared, is no transparency, and in a grey file
    of 16 bits 0 may be white.

    Args:
        img (np.ndarray): What OpenCV has decoded, ``(H, W)`` or ``(H, W, C)``, BGR or BGRA.
        data (bytes): The file's content.

    Returns:
        np.ndarray: The same, or what it should be.

    Raises:
        ValueError: the file cannot be decoded rightly; the message is a predicate.
    """
    with Image.open(BytesIO(data)) as file:
        tags = file.tag_v2
        extra, orientation = tags.get(_EXTRA_SAMPLES, ()), tags.get(_ORIENTATION, 1)
        turned = orientation in range(2, 9)
        if tags.get(_PHOTOMETRIC) in _LAB:
            raise ValueError('is a TIFF with the colours L*a*b*, which are not read; save it in RGB')
        deep = max(tags.get(_BITS, (1,))) > 8
        if deep and (turned or _PREMULTIPLIED in extra):
            how = f'stored turned (orientation {orientation})' if turned else 'with premultiplied transparency'
            raise ValueError(f'is a TIFF of more than 8 bits {how}, which is not read; save it anew')
        if not deep and (turned or extra[:1] in ((_PREMULTIPLIED,), (_ALPHA,))):
            try:
                rgb = np.array(file.convert('RGBA' if file.mode in ('LA', 'PA', 'RGBA', 'RGBa') else 'RGB'))
            except OSError as error:
                raise ValueError(f'cannot be decoded ({error})') from None
            return rgb[..., [2, 1, 0, 3][: rgb.shape[2]]]
        if extra[:1] == (_UNKNOWN,) and img.ndim == 3 and img.shape[2] == 4:
            return np.ascontiguousarray(img[..., :3])
        if img.dtype == np.uint16 and tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
            return np.iinfo(np.uint16).max - img
        return img


def largest_value(img: np.ndarray, data: bytes) -> int:
    """The value that means white: what PNM, AVIF and JPEG 2000 state, else the largest of the type of ``img``."""
    match = _ANYMAP.match(data)
    # of files in text with up to 8 bits OpenCV uses the maximum
    if match and not (match[1] in b'23' and img.dtype == np.uint8):
        return max(1, int(match[3]))
    match = _ANYMAP_7.match(data)
    if match:
        return max(1, int(match[1]))
    bits = _bits(data) if img.dtype == np.uint16 else 0
    return 2**bits - 1 if bits > 8 else int(np.iinfo(img.dtype).max)


def _bits(data: bytes) -> int:
    """Bits per channel of an AVIF or JPEG 2000 file; 0 for others."""
    at = data.find(b'av1C', 0, 1 << 16)
    if data[4:8] == b'ftyp' and at > 0:  # AV1 in ISO media, section 2.3.3
        flags = data[at + 6]
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    at = data.find(b'\xff\x4f\xff\x51', 0, 1 << 16)
    if data.startswith((b'\0\0\0\x0cjP', b'\xff\x4f')) and at >= 0:  # ISO/IEC 15444-1, section A.5.1
        return (data[at + 42] & 0x7F) + 1
    return 0


def with_clear_grey(img: np.ndarray, data: bytes) -> np.ndarray:
    """Add the transparency of a grey PNG that names one transparent value, as ``(H, W, 4)``; others are returned.

    Args:
        img (np.ndarray): ``(H, W)``, as decoded, or another image.
        data (bytes): The file's content.
    """
    end = data.find(b'IDAT')
    at = data.find(b'tRNS', 33, end) if img.ndim == 2 and data.startswith(PNG_START) and end > 0 else -1
    if at < 0 or data[25] != 0:  # the colour type of grey
        return img
    value, depth = int.from_bytes(data[at + 4 : at + 6], 'big'), data[24]
    value = value * 255 // (2**depth - 1) if depth < 8 else value
    alpha = np.where(img == value, 0, np.iinfo(img.dtype).max).astype(img.dtype)
    return np.stack([img, img, img, alpha], axis=-1)


def unread_kind(data: bytes) -> str | None:
    """Name of the format if it is one that OpenCV does not decode, such as HEIC; None if it is not known."""
    for offset, starts, name in _OTHERS:
        if data.startswith(starts, offset):
            return name
    head = data[:1000].lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if head.startswith((b'<svg', b'<?xml')) and b'<svg' in head:
        return 'SVG'
    if head.startswith((b'<!doctype html', b'<html')):
        return 'HTML'
    if data.startswith((PNG_START, b'RIFF', *TIFF_STARTS)):  # Pillow takes damaged ones for others
        return None
    try:
        with Image.open(BytesIO(data)) as file:
            return None if file.format in _READ else file.format
    except NO_HEADER:
        return None
