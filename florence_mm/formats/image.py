"""Decoding images to upright RGB arrays of 8 bits per channel; truncated files are errors."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from florence_mm.errors import DataError
from florence_mm.utils.files import FILE, kind_of_file
from florence_mm.utils.reading import read_bytes

from .image_kinds import (
    NO_HEADER,
    PNG_START,
    TIFF_STARTS,
    correct_tiff,
    largest_value,
    unread_kind,
    with_clear_grey,
)
from .jpeg import JPEG_START, ends_early, exif_segment, lacks_end_mark, stored_size

#: largest image file, so that a damaged size or a disk image does not fill the memory
MAX_BYTES = 2**30
#: default RGB behind transparent pixels
WHITE = np.array((255, 255, 255), dtype=np.float32)
_EXIF_ORIENTATION = 0x0112
# bytes of a PNG's chunk beside its data: length, name, checksum
_AROUND = 12
_EXIF_MARKS = (b'eXIf', b'EXIF', b'Raw profile type')
# since OpenCV 4.11 the decoder gives RGB itself, which saves a pass over the image
_DECODES_RGB = hasattr(cv2, 'IMREAD_COLOR_RGB')
_COLOR = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR
# these turn a JPEG upright and convert CMYK; for the other formats they would lose alpha and depth
_JPEG_FLAGS = {1: _COLOR, 2: _COLOR | cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: _COLOR | cv2.IMREAD_REDUCED_GRAYSCALE_4}
_GREY_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
}


def read_image(
    path: str, background: np.ndarray | None = None, backend_args: dict | None = None, source: str = ''
) -> np.ndarray:
    """Read an image file as ``(H, W, 3)`` uint8 RGB, upright.

    Args:
        path (str): The file.
        background (np.ndarray | None): ``(3,)`` RGB behind transparent pixels; None drops transparency.
        backend_args (dict | None): Where the path leads, see :func:`mmengine.fileio.get`. None: a local file.
        source (str): Put before error messages, as in "train.jsonl, line 3: ".

    Raises:
        DataError: the file is missing, empty, truncated, or not an image.
    """
    return decode_file(read_file(path, backend_args, source), path, background, source)


def read_file(path: str, backend_args: dict | None = None, source: str = '') -> bytes:
    """Read the bytes of an image file; arguments and errors are those of :func:`read_image`."""
    return read_bytes(path, backend_args, source, 'image', MAX_BYTES)


def decode_file(
    data: bytes, path: str, background: np.ndarray | None = None, source: str = '', reduction: int = 1
) -> np.ndarray:
    """Decode the bytes of an image file as :func:`decode_image` does; errors name the file as :func:`read_image`'s."""
    try:
        return decode_image(data, background, reduction)
    except ValueError as error:
        raise DataError(f'{source}the image {path} {error}; replace it or remove it') from None


def read_size(path: str | Path, source: str = '') -> tuple[int, int]:
    """Read width and height of an image file from its header, upright, as :func:`read_image` would give them.

    Args:
        path: the file.
        source: put before error messages.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        kind = kind_of_file(Path(path).stat())
        if kind != FILE:
            raise OSError(f'it is {kind}')
        with Image.open(path) as header:
            return _upright_size(header)
    except FileNotFoundError:
        raise DataError(f'{source}there is no image {path}; get it or correct the path') from None
    except NO_HEADER as error:
        raise DataError(f'{source}{path} is not an image ({error}); replace it or remove it') from None


def header_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height of an image from the header of its bytes, upright, without decoding it.

    None: the header is of no format that states them.

    Raises:
        Image.DecompressionBombError: Pillow refuses the size, so that only its kind is known: too large.
    """
    size = jpeg_size(data)
    if size is not None:
        return size[::-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of sizes that are only read, and of damage that decoding finds
            with Image.open(BytesIO(data)) as header:
                return _upright_size(header)
    except Image.DecompressionBombError:
        raise
    except NO_HEADER:
        return None


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read height and width of a JPEG file from its header, upright as :func:`decode_image` gives it.

    None: another format, or a header without a size.
    """
    stored = stored_size(data) if data.startswith(JPEG_START) else None
    segment = None if stored is None else exif_segment(data)
    if segment is None:
        return stored
    exif = Image.Exif()
    try:
        exif.load(segment)
        turned = exif.get(_EXIF_ORIENTATION) in (5, 6, 7, 8)
    except NO_HEADER:  # broken EXIF
        turned = False
    return stored[::-1] if turned else stored


def decode_image(
    data: bytes, background: np.ndarray | None = None, reduction: int = 1, grey: bool = False
) -> np.ndarray:
    """Decode an image to ``(H, W, 3)`` uint8 RGB (see :class:`florence_mm.datasets.transforms.loading.LoadImage`).

    Args:
        data (bytes): The file's content.
        background (np.ndarray | None): ``(3,)`` RGB behind transparent pixels; None drops transparency.
        reduction (int): 2 or 4 decodes a JPEG file at a half or a quarter of its height and width, rounded up. Other
            formats are decoded whole.
        grey (bool): Decode the brightness alone, as ``(H, W)``; of a JPEG file colours are then not even read.

    Raises:
        ValueError: the data are not a complete image; the message is a predicate, such as 'is an empty file'.
    """
    if not data:
        raise ValueError('is an empty file')
    jpeg = data.startswith(JPEG_START)
    if is_cut_off(data):
        raise ValueError('is cut off before its end')
    if data.startswith(PNG_START):
        data = without_animation(data)
    flag = (_GREY_FLAGS if grey else _JPEG_FLAGS)[reduction] if jpeg else cv2.IMREAD_UNCHANGED
    try:
        img = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error as error:
        raise ValueError(f'cannot be decoded ({error.err})') from None
    if img is None:
        kind = unread_kind(data)
        raise ValueError(f'is of the format {kind}, which is not read' if kind else 'is not an image, or is damaged')
    if jpeg:
        if ends_early(data, img[..., None] if grey else img, reduction):
            raise ValueError('is cut off before its end')
        return img if grey or _DECODES_RGB else _to_rgb(img, background)
    img = _decoded(img, data, background)
    return cv2.cvtColor(img, cv2.COLOR_RGB2GRAY) if grey else img


def _decoded(img: np.ndarray, data: bytes, background: np.ndarray | None) -> np.ndarray:
    """Give what OpenCV decoded of a file other than JPEG its upright RGB."""
    if data.startswith(TIFF_STARTS):
        return _to_rgb(_to_8_bit(correct_tiff(img, data), data), background)
    if img.ndim == 2:
        img = with_clear_grey(img, data)
    return _upright(_to_rgb(_to_8_bit(img, data), background), data)


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end marker; some decoders silently fill such images with grey."""
    if data.startswith(JPEG_START):
        return lacks_end_mark(data)
    return data.startswith(PNG_START) and _is_cut_png(data)


def _is_cut_png(data: bytes) -> bool:
    """Whether a PNG lacks its last chunk, or a chunk says that it is longer than the file.

    Some decoders fill what is missing with grey, and OpenCV asks for the memory that a chunk's length promises.
    """
    return all(name != b'IEND' for _, _, name in _png_chunks(data))


def without_animation(data: bytes) -> bytes:
    """Take the mark of an animation (chunk ``acTL``) from a PNG, so that its still picture is decoded.

    The still picture is what Pillow, and all that know no animations, show; it need not be the first frame. OpenCV's
    reader of frames is not safe from damaged files either. Files without the mark are returned as they are.
    """
    if data.find(b'acTL') < 0:
        return data
    kept = [PNG_START]
    end = len(PNG_START)
    for start, end, name in _png_chunks(data):
        if name != b'acTL':
            kept.append(data[start:end])
    return b''.join([*kept, data[end:]])


def _png_chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield start, end and name of the whole chunks of a PNG, up to the last one."""
    start = len(PNG_START)
    name = b''
    while name != b'IEND' and len(data) >= (end := start + _AROUND + int.from_bytes(data[start : start + 4], 'big')):
        name = data[start + 4 : start + 8]
        yield start, end, name
        start = end


def _to_8_bit(img: np.ndarray, data: bytes) -> np.ndarray:
    if img.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'has values of type {img.dtype}; expected 8 or 16 bits a channel')
    if img.dtype == np.uint8 and not data.startswith(b'P'):
        return img  # of 8 bits, PNM alone has another largest value
    largest = largest_value(img, data)
    if img.dtype == np.uint8 and largest == np.iinfo(np.uint8).max:
        return img
    return ((np.minimum(img, largest).astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)


def _to_rgb(img: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    if img.ndim == 2:
        return np.repeat(img[..., None], 3, axis=2)  # (H, W) -> (H, W, 3)
    rgb = cv2.cvtColor(img, cv2.COLOR_BGR2RGB if img.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    if img.shape[2] == 4 and background is not None:
        alpha = img[..., 3:].astype(np.float32) / 255  # (H, W, 1)
        rgb = np.rint(rgb * alpha + background * (1 - alpha)).astype(np.uint8)
    return rgb


def _upright_size(header: Image.Image) -> tuple[int, int]:
    width, height = header.size
    # Pillow gives the size of a TIFF as it is when upright
    turned = header.format != 'TIFF' and _orientation(header) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _orientation(header: Image.Image) -> int:
    try:
        return header.getexif().get(_EXIF_ORIENTATION, 1)
    except NO_HEADER:  # broken EXIF
        return 1


def _upright(img: np.ndarray, data: bytes) -> np.ndarray:
    # parsing the header costs more than decoding a small PNG, so search for an EXIF marker first (PNG, WebP)
    # AVIF says how it is turned by properties of its own, which Pillow reports as EXIF and OpenCV leaves out
    avif = data[4:12] in (b'ftypavif', b'ftypavis')
    if not (avif or any(mark in data for mark in _EXIF_MARKS)):
        return img
    try:
        with Image.open(BytesIO(data)) as header:
            orientation = _orientation(header)
    except NO_HEADER:
        # a format unknown to PIL: the pixels are fine, so leave them as they are
        return img
    # EXIF 2.32, section 4.6.4: on which side the 0th row and the 0th column are displayed
    if orientation in (5, 6, 7, 8):
        img = img.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        img = img[::-1]
    if orientation in (2, 3, 6, 7):
        img = img[:, ::-1]
    return np.ascontiguousarray(img)
