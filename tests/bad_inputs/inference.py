"""Bad inputs: images, folders and arguments of inferencers."""

import math
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from florence_mm.apis import DetectionInferencer, MultimodalInferencer
from florence_mm.registry import MODELS

from .case import ROOT, BadInput

AREA = 'inference'
_world = runpy.run_path(str(ROOT / 'tests/test_models/coloured_boxes.py'))
_tiny_meter = runpy.run_path(str(ROOT / 'tests/test_models/tiny_meter.py'))['tiny_meter']
_HEADS = {
    'vqa': {'type': 'FusionVQAHead', 'num_answers': 4},
    'itm': {'type': 'FusionITMHead'},
    'caption': {'type': 'FusionCaptionHead', 'max_length': 4},
}
_NOT_COUNTS = (0, -1, 1.5, '2', None, math.nan, [1], True)


class Finder(_world['RectangleFinder']):
    """Labels its rectangles as the first class."""

    def predict(self, inputs: torch.Tensor, data_samples: list, rescale: bool = True) -> list:
        for sample in super().predict(inputs, data_samples, rescale=False):
            found = sample.pred_instances
            found.labels = torch.zeros(len(found), dtype=torch.long)
        return data_samples


def _finder() -> Any:
    plain = {'type': 'mmdet.DetDataPreprocessor', 'mean': [0.0] * 3, 'std': [1.0] * 3}
    return Finder(MODELS.build(plain))


def _config(model: Callable, *steps: dict, scope: str = 'florence_mm') -> Config:
    pipeline = [{'type': 'florence_mm.LoadImage'}, *steps]
    dataset = {'type': 'mmdet.CocoDataset', 'ann_file': 'no.json', 'pipeline': pipeline, 'metainfo': {'classes': 'no'}}
    dataset['metainfo'] = {'classes': tuple(_world['WORDS'])}
    return Config({'model': {'type': model}, 'test_dataloader': {'dataset': dataset}, 'default_scope': scope})


def _detector(**settings: Any) -> DetectionInferencer:
    steps = {'type': 'mmdet.Resize', 'scale_factor': 1.0, 'keep_ratio': True}, {'type': 'mmdet.PackDetInputs'}
    return DetectionInferencer(_config(_finder, *steps), None, **{'device': 'cpu', **settings})


def _answerer() -> Any:
    return _tiny_meter(_HEADS)


def _without_matching() -> Any:
    return _tiny_meter({'vqa': _HEADS['vqa']})


def _meter(model: Callable = _answerer, **settings: Any) -> MultimodalInferencer:
    return MultimodalInferencer(_config(model, {'type': 'florence_mm.PackVQA'}), None, **{'device': 'cpu', **settings})


def _picture(height: int = 64, width: int = 64) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def _good(folder: Path, name: str = 'good.png', **size: int) -> Path:
    cv2.imwrite(str(folder / name), _picture(**size))
    return folder / name


def _content(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / 'pipe.png')
    return folder / 'pipe.png'


def _empty_folder(folder: Path) -> Path:
    (folder / 'b.png').mkdir()
    return folder / 'b.png'


def _broken_link(folder: Path) -> Path:
    (folder / 'link.png').symlink_to('nowhere.png')
    return folder / 'link.png'


def _circle(folder: Path) -> Path:
    (folder / 'circle.png').symlink_to('circle.png')
    return folder / 'circle.png'


def _circle_in_a_folder(folder: Path) -> list[bool]:
    _good(folder), _circle(folder)
    return ['error' in result for result in _detector()(folder, out_dir=folder / 'out')]


def _onto_pipe(folder: Path) -> Any:
    return _meter()(_picture(), 'why?', out=_pipe(folder))


def _cut(suffix: str) -> Callable[[Path], Path]:
    data = cv2.imencode(suffix, _picture())[1].tobytes()
    return _content(f'cut{suffix}', data[: len(data) // 2])


#: one item beside a good one: the sentence is its own and names it
ITEMS: dict[str, Callable[[Path], Any]] = {
    'an empty file': _content('empty.png', b''),
    'a PNG cut at half': _cut('.png'),
    'a JPEG cut at half': _cut('.jpg'),
    'a text with the name of an image': _content('text.png', b'not an image'),
    'a web page with the name of an image': _content('page.jpg', b'<!DOCTYPE html><html></html>'),
    'a folder without images, named b.png': _empty_folder,
    'a link to nothing': _broken_link,
    'a link to itself': _circle,
    'a missing file': lambda folder: folder / 'missing.png',
    'a name of 5000 letters': lambda folder: 'x' * 5000 + '.png',
    'a named pipe': _pipe,
    'the device /dev/zero': lambda folder: '/dev/zero',
    'the device /dev/null': lambda folder: '/dev/null',
    'a URL of an unknown scheme': lambda folder: 'nosuch://bucket/a.png',
    'a URL of s3': lambda folder: 's3://',
    'a file URL that names a machine': lambda folder: 'file://host/a.png',
    'an http URL that nobody answers': lambda folder: 'http://127.0.0.1:9/a.png',
    'an array of one channel': lambda folder: np.zeros((8, 8), np.uint8),
    'an array of four channels': lambda folder: np.zeros((8, 8, 4), np.uint8),
    'an array of floats': lambda folder: np.zeros((8, 8, 3)),
    'an array without rows': lambda folder: np.zeros((0, 8, 3), np.uint8),
}


def _beside_good(make: Callable, item: Callable[[Path], Any], where: int) -> Callable[[Path], list[str]]:
    """Ask for the item among two good ones: which have an error, and whether it names the item."""

    def run(folder: Path) -> list:
        bad = item(folder)
        good = [_good(folder, f'good{i}.png') for i in range(2)]
        results = make(batch_size=2)([*good[:where], bad, *good[where:]], *_asked(make), skip_bad=True)
        named = 'array' if isinstance(bad, np.ndarray) else Path(str(bad)).name[:40]
        errors = [result.get('error', '') for result in results]
        return [named in error if error else 'done' for error in errors]

    return run


def _asked(make: Callable) -> tuple:
    return ('how many?',) if make is _meter else ()


def _alone(item: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda folder: _detector()(item(folder), skip_bad=False)


def _sizes(height: int, width: int) -> Callable[[Path], list[bool]]:
    """An image of that size in a batch with two others, for a model that takes it."""

    def run(folder: Path) -> list[bool]:
        files = [_good(folder), _good(folder, 'odd.png', height=height, width=width), _good(folder, 'last.png')]
        return ['error' in result for result in _detector(batch_size=3)(files, out_dir=folder / 'out')]

    return run


def _name(raw: bytes) -> Callable[[Path], int]:
    def run(folder: Path) -> int:
        file = Path(os.fsdecode(os.fsencode(folder) + b'/' + raw))
        file.write_bytes(cv2.imencode('.png', _picture())[1].tobytes())
        _detector()(folder, out_dir=folder / 'out')
        return len(list((folder / 'out').iterdir()))

    return run


def _attention(word: Any = 'two', text: Any = 'is there a two?', **settings: Any) -> Callable[[Path], Any]:
    return lambda folder: _meter().draw_attention(_picture(), text, word, folder / 'a.png', **settings)


def _items() -> list[BadInput]:
    rows = []
    for words, item in ITEMS.items():
        rows.append(
            BadInput(
                f'detection: {words} between good images',
                _beside_good(_detector, item, 1),
                gives=['done', True, 'done'],
                seconds=10,
            )
        )
        rows.append(
            BadInput(
                f'questions: {words} before good images',
                _beside_good(_meter, item, 0),
                gives=[True, 'done', 'done'],
                seconds=10,
            )
        )
        rows.append(BadInput(f'detection: {words} alone, to be raised', _alone(item), ('image',), seconds=10))
    for height, width in ((1, 1), (1, 5000), (5000, 1), (3, 3), (7, 64)):
        rows.append(
            BadInput(f'detection: an image of {height} x {width} in a batch', _sizes(height, width), gives=[False] * 3)
        )
    for raw in (b'caf\xe9.png', b'\xff\xfe.png', 'ü名.png'.encode(), b'a b;c&.png', b'-x.png', b'x' * 250 + b'.png'):
        rows.append(BadInput(f'detection: a file named {raw[:20]!r}', _name(raw), gives=2))
    return rows


def _arguments() -> list[BadInput]:
    rows = []
    for value in (math.nan, -0.1, 1.5, math.inf, 'half', None, [0.3]):
        rows.append(
            BadInput(
                f'detection: score_thr={value!r}', lambda f, v=value: _detector()(_picture(), score_thr=v), 'score_thr'
            )
        )
    for value, named in (('fp16', 'give one of auto, fp32, bf16, int8'), ('int8', 'florence-mm export MODEL')):
        rows.append(
            BadInput(f'detection: precision={value!r}', lambda f, v=value: _detector(precision=v), ('precision', named))
        )
    for value in _NOT_COUNTS:
        rows += [
            BadInput(
                f'detection: batch_size={value!r}',
                lambda f, v=value: _detector(batch_size=v),
                f'batch_size is {value!r}',
            ),
            BadInput(
                f'questions: top={value!r}', lambda f, v=value: _meter()(_picture(), 'why?', top=v), f'top is {value!r}'
            ),
        ]
    for value in ('nonsense', 'cuda:99', 'gpu', ['cpu'], 7):
        rows.append(BadInput(f'device={value!r}', lambda f, v=value: _detector(device=v), repr(value)))
    for value in (7, None, {}, [], [None], [7], b'a.png', ['']):
        rows.append(BadInput(f'detection: images={value!r}', lambda f, v=value: _detector()(v), 'images'))
    rows.append(BadInput('detection: an empty folder', lambda folder: _detector()(folder), 'has no images'))
    for value in ('', ' , ', [], 7, [None], {'red': 1}, ['red', 3], 'rde'):
        rows.append(BadInput(f'detection: classes={value!r}', lambda f, v=value: _detector()(_picture(), v), 'class'))
    for value in ('', ' ', [''], 7, [7], None, {'a': 1}):
        rows.append(BadInput(f'questions={value!r}', lambda f, v=value: _meter()(_picture(), v), 'question'))
        rows.append(BadInput(f'sentences={value!r}', lambda f, v=value: _meter()(_picture(), (), v), 'sentence'))
    rows.append(BadInput('nothing is asked', lambda f: _meter()(_picture()), 'nothing is asked'))
    rows += [
        BadInput('attention to a word that is not there', _attention('nine'), "'nine'"),
        BadInput('attention to no word', _attention(''), 'word'),
        BadInput('attention in an empty text', _attention(text=' '), 'empty'),
        BadInput('attention in a text that is a number', _attention(text=7), '7'),
        BadInput('attention of no layer', _attention(layers=[]), 'layers'),
        BadInput('attention of layer 9', _attention(layers=[9]), '9'),
        BadInput('detection: a folder with a link to itself', _circle_in_a_folder, gives=[True, False]),
        BadInput('results into a named pipe', _onto_pipe, ('pipe.png', 'name a file')),
        BadInput(
            'detection: templates for fixed classes',
            lambda f: _detector(templates='simple')(_picture()),
            ("templates='simple'", 'fixed classes'),
        ),
        BadInput('results into a folder', lambda folder: _meter()(_picture(), 'why?', out=folder), 'is a folder'),
        BadInput('drawings into a file', lambda folder: _detector()(_picture(), out_dir=_good(folder)), 'good.png'),
        BadInput(
            'drawings into the folder of the images',
            lambda folder: _detector()(_good(folder), out_dir=folder),
            'output folder',
        ),
        BadInput(
            'drawings into the folder of the images, by a link',
            lambda folder: ((folder / 'l').symlink_to(folder), _detector()(_good(folder), out_dir=folder / 'l')),
            'output folder',
        ),
        BadInput(
            'results over the image',
            lambda folder: _meter()(_good(folder), 'why?', out=folder / 'good.png'),
            'is the input',
        ),
        BadInput('a detector asked questions', lambda f: _meter(_finder), ('Finder', 'vision-language')),
        BadInput(
            'a vision-language model asked for boxes',
            lambda f: DetectionInferencer(_config(_answerer, {'type': 'florence_mm.PackVQA'}), None, 'cpu'),
            ('METER', 'detector'),
        ),
        BadInput(
            'matching without the head',
            lambda f: _meter(_without_matching)(_picture(), (), 'a'),
            'FusionITMHead',
        ),
        BadInput(
            'two heads that answer',
            lambda f: _tiny_meter({'a': _HEADS['vqa'], 'b': _HEADS['vqa']}),
            ('a and b', 'answers'),
        ),
    ]
    return rows


def cases() -> list[BadInput]:
    # what these import is then in every fork
    _detector()(_picture()), _meter()(_picture(), 'how many?')
    return [*_items(), *_arguments()]
