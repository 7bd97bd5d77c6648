"""Bad inputs: the files that LoadImage reads."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from florence_mm.datasets.transforms.loading import LoadImage

from .case import BadInput
from .manifests import FILES, other_files, pictures

AREA = 'image files'
BLOCKS = np.kron(np.random.default_rng(0).integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
KINDS = ('PNG', 'JPEG', 'WEBP', 'BMP', 'GIF', 'TIFF', 'PPM')


def encode(kind: str, picture: np.ndarray = BLOCKS, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def _read(data: bytes | None = None, path: str = 'a.png', **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        pictures(folder)
        other_files(folder)
        if data is not None:
            (folder / path).write_bytes(data)
        return LoadImage(**settings)({'img_path': path, 'source': 'list'})['img'].shape

    return run


def cases() -> list[BadInput]:
    rows = [BadInput(name[:40], _read(path=name), ('list: the image', says)) for name, says in FILES.items()]
    for kind in KINDS:
        data = encode(kind)
        rows.append(BadInput(f'{kind}, whole', _read(data), gives=(96, 128, 3)))
        rows.append(BadInput(f'{kind} by the name of another', _read(data, 'a.jpg'), gives=(96, 128, 3)))
        rows += [
            BadInput(f'{kind}, the first {part:.0%}', _read(data[: int(part * len(data))]), 'a.png')
            for part in (0.02, 0.3, 0.6, 0.9)
        ]
        rows.append(BadInput(f'{kind}, its first bytes changed', _read(b'\0\0\0\0' + data[4:]), 'is not an image'))
    for words, options in {
        'JPEG': {},
        'progressive JPEG': {'progressive': True},
        'JPEG with restart markers': {'restart_marker_blocks': 4},
        'JPEG without subsampling': {'subsampling': 0},
        'grey JPEG': {'picture': BLOCKS[..., 0]},
    }.items():
        data = encode('JPEG', **options)
        start = data.find(b'\xff\xda') + 20
        for part in (0.1, 0.5, 0.9):
            end = start + int(part * (len(data) - start))
            rows.append(
                BadInput(f'{words}, cut at {part:.0%}, an end mark put on', _read(data[:end] + b'\xff\xd9'), 'cut off')
            )
        rows.append(BadInput(f'{words}, more behind its end', _read(data + b'more' * 20), gives=(96, 128, 3)))
    white = np.full((40, 40, 3), 255, np.uint8)
    rows.append(BadInput('a white JPEG', _read(encode('JPEG', white)), gives=(40, 40, 3)))
    rows.append(BadInput('a white progressive JPEG', _read(encode('JPEG', white, progressive=True)), gives=(40, 40, 3)))
    rows.append(BadInput('a picture of 1 x 1', _read(encode('PNG', white[:1, :1])), gives=(1, 1, 3)))
    rows.append(
        BadInput('a picture of 1 x 5000', _read(encode('PNG', np.zeros((1, 5000, 3), np.uint8))), gives=(1, 5000, 3))
    )
    floats = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(floats, 'TIFF')
    rows.append(BadInput('a TIFF of decimals', _read(floats.getvalue()), 'float32'))
    rows.append(BadInput('a path with a NUL', _read(path='a\0.png'), 'no file name can have'))
    rows.append(BadInput('a path with a lone surrogate', _read(path='a\ud800.png'), 'no file name can have'))
    rows.append(BadInput('a sparse file of 1 TB', _sparse, 'more than'))
    for name, values in {
        'background': ((1, 2), 'white', (1, 2, math.nan), (1, 2, 300), (-1, 0, 0), 7, ('1', '2', '3'), {1, 2, 3}),
        'keep_mb': (-1, math.nan, math.inf, '3', None, True),
        'backend_args': ('local', 7, ['local'], {'backend': 'nowhere'}, {'backend': 'petrel'}, {'path': 3}),
    }.items():
        rows += [BadInput(f'{name}={value!r}', _read(encode('PNG'), **{name: value}), name) for value in values]
    return rows


def _sparse(folder: Path) -> Any:
    with (folder / 'a.png').open('wb') as file:
        os.truncate(file.fileno(), 10**12)
    return LoadImage()({'img_path': str(folder / 'a.png')})
