"""Bad inputs: pictures in memory beside their files, what is no picture, names of models."""

import io
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from florence_mm.apis import RetrievalInferencer, get_model, init_model, list_models
from florence_mm.apis.inputs import from_memory
from florence_mm.formats.image import WHITE, read_image

from .case import ROOT, BadInput, call
from .inference import _meter

AREA = 'what is given in memory, models by name'
NAME = 'unicl_coswin-micro_1xb64-36e_digits'
_world = runpy.run_path(str(ROOT / 'tests/test_apis/test_image_inferencer.py'))
_RED = np.full((4, 5, 3), (200, 0, 0), np.uint8)
_GREY = (np.arange(20).reshape(4, 5) * 3001).astype(np.uint16)  # of 16 bits
_TURNED = Image.Exif()
_TURNED[0x112] = 6


def _both(name: str, picture: Image.Image | bytes, **options: Any) -> Callable[[Path], Any]:
    """Write a picture, and read it as a file and with Pillow; returns how far apart they are, and the shape."""

    def run(folder: Path) -> Any:
        if isinstance(picture, bytes):
            Path(name).write_bytes(picture)
        else:
            picture.save(name, **options)
        file, memory = read_image(name, WHITE), from_memory(Image.open(name))
        assert file.shape == memory.shape, (file.shape, memory.shape)
        return int(np.abs(file.astype(int) - memory).max()), file.shape[:2]

    return run


def _same() -> list[BadInput]:
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (4, 5, 4)).astype(np.uint8))
    rgb, smooth = rgba.convert('RGB'), Image.fromarray(cv2.resize(np.asarray(rgba)[..., :3], (50, 40)))
    colours = rgb.convert('P', palette=Image.Palette.ADAPTIVE, colors=8)
    graymap = _GREY.astype('>u2').tobytes()
    files = {
        'a grey PNG of 16 bits': _both('a.png', Image.fromarray(_GREY)),
        'a grey PNG of 16 bits with a clear value': _both(
            'a.png', Image.fromarray(_GREY), transparency=int(_GREY[1, 1])
        ),
        'a TIFF of 16 bits': _both('a.tif', Image.fromarray(_GREY)),
        'a graymap of 16 bits': _both('a.pgm', b'P5 5 4 65535\n' + graymap),
        'a dark graymap of 16 bits': _both('a.pgm', b'P5 5 4 65535\n' + (_GREY >> 8).astype('>u2').tobytes()),
        'a graymap where 1023 is white': _both('a.pgm', b'P5 5 4 1023\n' + (_GREY >> 6).astype('>u2').tobytes()),
        'a PNG with transparency': _both('a.png', rgba),
        'a WebP with transparency': _both('a.webp', rgba, lossless=True),
        'a palette with transparency': _both('a.png', colours, transparency=bytes(range(0, 240, 30))),
        'a GIF with a clear colour': _both('a.gif', colours, transparency=2),
        'a GIF of two pictures': _both('a.gif', rgb, save_all=True, append_images=[rgb.rotate(180)]),
        'a bitmap of two values': _both('a.png', rgb.convert('1')),
        'a JPEG': _both('a.jpg', smooth),
        'a TIFF in CMYK': _both('a.tif', smooth.convert('CMYK')),
    }
    rows = [BadInput(f'file and Pillow: {words}', run, gives=(0, size)) for words, run in files.items()
            for size in [(40, 50) if 'JPEG' in words or 'CMYK' in words else (4, 5)]]  # fmt: skip
    for name in ('a.jpg', 'a.png', 'a.webp'):
        run = _both(name, smooth, exif=_TURNED, **({'lossless': True} if name == 'a.webp' else {}))
        rows.append(BadInput(f'file and Pillow: turned by EXIF, {name}', run, gives=(0, (50, 40))))
    for size in ((1, 1), (1, 9), (9, 1)):
        run = _both('a.png', Image.fromarray(np.full((*size, 3), 7, np.uint8)))
        rows.append(BadInput(f'file and Pillow: {size[0]} x {size[1]} pixels', run, gives=(0, size)))
    run = _both('a.jpg', smooth.convert('CMYK'))  # OpenCV and Pillow round otherwise
    return [*rows, BadInput('file and Pillow: a JPEG in CMYK', run, gives=(1, (40, 50)))]


def _prepared(given: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        cv2.imwrite('a.png', _RED[..., ::-1])
        made = given(folder) if callable(given) else given
        inputs = init_model(_world['config'](), None, 'cpu').preprocess(made)['inputs']
        return [one[:, 0, 0].tolist() for one in inputs]

    return run


def _searched(query: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        cv2.imwrite('a.png', _RED[..., ::-1])
        search = RetrievalInferencer(_world['config'](), None, 'cpu')
        search.index('a.png', 'index')
        return search.search(query)

    return run


def _drawn(image: Any = _RED, text: Any = 'what is red', word: Any = 'red', layers: Any = None) -> Callable:
    return lambda folder: _meter().draw_attention(image, text, word, 'o.png', layers)


def _frozen(folder: Path) -> np.ndarray:
    image = _RED.copy()
    image.flags.writeable = False
    return image


def cases() -> list[BadInput]:
    """The inputs."""
    rows = _same()
    red = [[200, 0, 0]]
    for words, given in {
        'a file as a text': 'a.png',
        'a file as a path': Path('a.png'),
        'Pillow': Image.fromarray(_RED),
        'mirrored in memory': np.ascontiguousarray(_RED[:, ::-1])[:, ::-1],
        'turned in memory': np.asfortranarray(_RED),
        'one that cannot be written to': _frozen,
        'one pixel': _RED[:1, :1],
    }.items():
        rows.append(BadInput(f'preprocess: {words}', _prepared(given), gives=red))
    for words, given, says in (
        ('None', None, 'None is given as an image'),
        ('a number', 5, '5 is given as an image'),
        ('a dict', {'inputs': _RED}, 'is given as an image'),
        ('bytes of a file', b'\x89PNG', "b'\\x89PNG' is given as an image"),
        ('an open file', lambda folder: io.BytesIO(b''), 'is given as an image'),
        ('a tensor', torch.from_numpy(_RED), 'is given as an image'),
        ('a list in a list', [['a.png']], "['a.png'] is given as an image"),
        ('nothing', [], 'nothing was given to prepare'),
        ('a glob', '*.png', '*.png'),
        ('floats from 0 to 1', _RED / 255, ('float64', 'uint8 RGB from 0 to 255')),
        ('truth values', _RED > 3, 'type bool'),
        ('four channels', np.dstack([_RED, _RED[..., :1]]), '(4, 5, 4)'),
        ('no rows', _RED[:0], '(0, 5, 3)'),
        ('a batch', _RED[None], '(1, 4, 5, 3)'),
        ('an array of paths', np.array(['a.png']), '(1,)'),
        ('a second picture that is none', ['a.png', None], 'None is given as an image'),
    ):
        rows.append(BadInput(f'preprocess: {words}', _prepared(given), says=says))
    for words, query in {'None': None, 'a number': 5, 'a list with None': ['red', None]}.items():
        rows.append(BadInput(f'a query that is {words}', _searched(query), says='is given as an image'))
    rows += [
        BadInput('attention: no picture', _drawn(None), says='None is given as an image'),
        BadInput('attention: two texts', _drawn(text=['red', 'blue']), says="['red', 'blue'] and 'red' are given"),
        BadInput('attention: a number as word', _drawn(word=5), says="'what is red' and 5 are given"),
        BadInput('attention: a number as layers', _drawn(layers=1), says='layers are 1; give a list'),
        BadInput('attention: a text as layers', _drawn(layers='1'), says="layers are '1'; give a list"),
        BadInput('a list as the name of a model', call(get_model, [NAME]), says=NAME),
        BadInput('a name in capitals', call(get_model, NAME.upper()), says=f'did you mean {NAME!r}?'),
        BadInput('pretrained is 2', call(get_model, NAME, 2), says='pretrained is 2'),
        BadInput('pretrained is an empty text', call(get_model, NAME, ''), says="pretrained is ''"),
        BadInput('a model on no device', call(get_model, NAME, False, 'tpu9'), says="device 'tpu9' cannot be used"),
        BadInput('a number as pattern of names', call(list_models, 5), says='pattern is 5'),
        BadInput('names with pretrained="yes"', call(list_models, pretrained='yes'), says="pretrained is 'yes'"),
        BadInput('names of no task', call(list_models, task='zero-shot'), says="task 'zero-shot' is none of"),
    ]
    return rows
