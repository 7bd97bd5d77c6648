"""Bad inputs: image files whose values mean something else than usual, and formats that are not read."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

from florence_mm.formats.image import decode_image, read_image, read_size

from .case import BadInput, call

AREA = 'kinds of image files'
ROW = np.array([[[200, 100, 0], [0, 50, 250]]], np.uint8)
WHITE = np.array((255.0, 255.0, 255.0))
FORMATS = {
    'HEIC': b'\0\0\0\x18ftypheic' + bytes(40),
    'JPEG XL': b'\xff\x0a' + bytes(40),
    'SVG': b'<?xml version="1.0"?><svg width="9"/>',
    'PDF': b'%PDF-1.7\n',
    'HTML': b'<!DOCTYPE html><title>404</title>',
    'Photoshop': b'8BPS\0\1' + bytes(40),
}


def tiff(values: np.ndarray, photometric: int, extra: int | None = None, orientation: int = 1) -> bytes:
    """A TIFF 6.0 in one uncompressed strip.

    Args:
        values: ``(H, W, C)`` uint8 or uint16.
        photometric: 0 where 0 is white, 1 where it is black, 2 RGB, 8 L*a*b*.
        extra: meaning of the last channel: 0 unknown, 1 premultiplied transparency, 2 transparency.
        orientation: how it is stored.
    """
    (height, width, channels), bits = values.shape, 8 * values.itemsize
    entries = {256: width, 257: height, 259: 1, 262: photometric, 274: orientation, 277: channels, 278: height}
    if extra is not None:
        entries[338] = extra
    end = 8 + 2 + 12 * (len(entries) + 3) + 4
    each = struct.pack(f'<{channels}H', *[bits] * channels)
    data = values.astype(values.dtype.newbyteorder('<')).tobytes()
    fields = {tag: struct.pack('<HHIHH', tag, 3, 1, value, 0) for tag, value in entries.items()}
    fields[258] = struct.pack('<HHI', 258, 3, channels) + (
        struct.pack('<I', end) if channels > 2 else each.ljust(4, b'\0')
    )
    fields[273] = struct.pack('<HHII', 273, 4, 1, end + len(each))
    fields[279] = struct.pack('<HHII', 279, 4, 1, len(data))
    directory = b''.join(fields[tag] for tag in sorted(fields))
    return b'II*\0\x08\0\0\0' + struct.pack('<H', len(fields)) + directory + bytes(4) + each + data


def pixels(data: bytes, background: np.ndarray | None = WHITE) -> list:
    """The values of the first row of a picture."""
    return decode_image(data, background)[0].tolist()


def _gray(data: bytes) -> list[int]:
    return [value[0] for value in pixels(data)]


def _turned(orientation: int) -> Callable[[Path], Any]:
    """Red of the corners, in reading order, and the size that the header gives."""

    def run(folder: Path) -> Any:
        values = np.zeros((2, 3, 3), np.uint8)
        values[[0, 0, 1, 1], [0, 2, 0, 2], 0] = 1, 2, 3, 4
        (folder / 'a.tif').write_bytes(tiff(values, 2, orientation=orientation))
        img = read_image(str(folder / 'a.tif'))
        return img[[0, 0, -1, -1], [0, -1, 0, -1], 0].tolist(), read_size(folder / 'a.tif') == img.shape[1::-1]

    return run


def _png(mode: str, values: list, clear: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array([values], np.uint16 if mode == 'I;16' else np.uint8)).save(file, 'PNG', transparency=clear)
    return file.getvalue()


def _avif(bits: int) -> bytes:
    values = np.full((16, 16, 3), 2**bits - 1, np.uint16)
    values[:, :8] = 2 ** (bits - 1)
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    return cv2.imencode('.avif', values, options)[1].tobytes()


def _jpeg_2000(pixel_format: str) -> bytes:
    encoder = av.CodecContext.create('jpeg2000', 'w')
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 32, 32, pixel_format, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 255, np.uint8), format='rgb24')
    return bytes([*encoder.encode(frame.reformat(format=pixel_format)), *encoder.encode(None)][0])


def cases() -> list[BadInput]:
    # worked by hand: a value times 255, divided by what is white
    rows = [
        BadInput('PGM where 15 is white', call(_gray, b'P5 3 1 15\n\0\5\x0f'), gives=[0, 85, 255]),
        BadInput(
            'PGM where 15 is white, with notes', call(_gray, b'P5\n# a\n3\n#b\n1 15\n\0\5\x0f'), gives=[0, 85, 255]
        ),
        BadInput('PGM where 15 is white, as text', call(_gray, b'P2\n3 1\n15\n0 5 15\n'), gives=[0, 85, 255]),
        BadInput('PGM where 1023 is white', call(_gray, b'P5 2 1 1023\n\2\0\3\xff'), gives=[128, 255]),
        BadInput('PPM where 100 is white', call(pixels, b'P6 1 1 100\n\0\x32\x64'), gives=[[0, 128, 255]]),
        BadInput(
            'PAM where 15 is white',
            call(_gray, b'P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL 15\nTUPLTYPE GRAYSCALE\nENDHDR\n\5\x0f'),
            gives=[85, 255],
        ),
    ]
    for bits in (10, 12):
        run = lambda _, bits=bits: decode_image(_avif(bits))[0, [0, -1], 0].tolist()  # noqa: E731
        rows.append(BadInput(f'AVIF of {bits} bits', run, gives=[128, 255]))
        run = lambda _, bits=bits: int(decode_image(_jpeg_2000(f'gray{bits}le')).min())  # noqa: E731
        rows.append(BadInput(f'JPEG 2000 of {bits} bits', run, gives=255))
    clear = np.dstack([ROW, [[51, 255]]]).astype(np.uint8)  # a fifth of red, over white
    over = [[244, 224, 204], [0, 50, 250]]
    premultiplied = np.dstack([ROW // 5 * [[[1], [5]]], [[51, 255]]]).astype(np.uint8)
    gray = np.dstack([ROW[..., :1], [[51, 255]]]).astype(np.uint8)
    colour = _png('RGB', ROW[0].tolist(), (0, 50, 250))
    deep = (ROW.astype(np.uint16) * 257)[..., :1]
    rows += [
        BadInput('TIFF with transparency', call(pixels, tiff(clear, 2, 2)), gives=over),
        BadInput('TIFF with transparency, dropped', call(pixels, tiff(clear, 2, 2), None), gives=ROW[0].tolist()),
        BadInput('TIFF with premultiplied transparency', call(pixels, tiff(premultiplied, 2, 1)), gives=over),
        BadInput('grey TIFF with transparency', call(_gray, tiff(gray, 1, 2)), gives=[244, 0]),
        BadInput('TIFF with a fourth channel of infrared', call(pixels, tiff(clear, 2, 0)), gives=ROW[0].tolist()),
        BadInput('TIFF of 16 bits where 0 is white', call(_gray, tiff(deep, 0)), gives=[55, 255]),
        BadInput('TIFF of 16 bits where 0 is black', call(_gray, tiff(deep, 1)), gives=[200, 0]),
        BadInput('TIFF of 8 bits where 0 is white', call(_gray, tiff(ROW[..., :1], 0)), gives=[55, 255]),
        BadInput('TIFF in L*a*b*', call(pixels, tiff(ROW, 8)), 'L*a*b*'),
        BadInput('TIFF of 16 bits stored turned', call(pixels, tiff(deep, 1, orientation=6)), 'orientation 6'),
        BadInput('TIFF with an unknown orientation', call(pixels, tiff(ROW, 2, orientation=9)), gives=ROW[0].tolist()),
        BadInput('grey PNG with a clear value', call(_gray, _png('L', [7, 9, 7], 7)), gives=[255, 9, 255]),
        BadInput(
            'grey PNG of 16 bits with a clear value', call(_gray, _png('I;16', [2570, 2571], 2571)), gives=[10, 255]
        ),
        BadInput(
            'PNG with a clear colour',
            call(pixels, colour),
            gives=[[200, 100, 0], [255] * 3],
        ),
    ]
    corners = {1: '1234', 2: '2143', 3: '4321', 4: '3412', 5: '1324', 6: '3142', 7: '4231', 8: '2413'}
    for orientation, order in corners.items():
        expected = ([int(corner) for corner in order], True)
        rows.append(BadInput(f'TIFF with orientation {orientation}', _turned(orientation), gives=expected))
    icon = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(icon, 'ICO')
    for name, data in {**FORMATS, 'ICO': icon.getvalue()}.items():
        rows.append(BadInput(f'a picture in {name}', call(pixels, data), f'is of the format {name}, which is not read'))
    return rows
