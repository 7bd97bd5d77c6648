"""Bad inputs: command lines of florence-mm, indexes, pictures of Pillow, folders of weights."""

import json
import os
import runpy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from florence_mm.apis import ImageInferencer, RetrievalInferencer
from florence_mm.apis.inputs import files_of, from_memory
from florence_mm.formats.feature_index import FeatureIndex
from florence_mm.utils.download import download
from florence_mm.utils.home import home

from .case import ROOT, BadInput, command

AREA = 'first hour: florence-mm, search, pictures in memory'
DIGITS = ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py'
NAME = DIGITS.stem
_world = runpy.run_path(str(ROOT / 'tests/test_apis/test_image_inferencer.py'))
_RED = np.full((8, 8, 3), (200, 0, 0), np.uint8)
_GOOD = {'version': 1, 'dims': 2, 'dtype': 'float32'}


def _line(*words: object, **variables: str) -> Callable[[Path], Any]:
    """Run florence-mm in a folder with a picture, a text, an empty folder and indexes."""

    def run(folder: Path) -> Any:
        cv2.imwrite('a.png', _RED[..., ::-1])
        Path('t.txt').write_text('text')
        Path('w.pth').write_text('text')
        Path('empty').mkdir()
        for name, head in (('list', []), ('old', {'version': 0}), ('bare', {'version': 1, 'dims': 2})):
            Path(name).mkdir()
            Path(name, 'index.json').write_text(json.dumps(head))
        os.environ.update(variables)
        return command('florence_mm/__main__.py', *words).status

    return run


def _classify(*options: object, inputs: str = 'a.png', **variables: str) -> Callable[[Path], Any]:
    return _line('classify', inputs, '--classes', 'a, b', *options, **variables)


def _pillow(values: np.ndarray) -> Callable[[Path], Any]:
    return lambda folder: from_memory(Image.fromarray(values))[0, 0].tolist()


def _label(image: Any, classes: Any = 'blue, red') -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (found,) = ImageInferencer(_world['config'](), None, 'cpu')(image, classes, skip_bad=False)
        return found['labels'][0]

    return run


def _searching(*names: str, change: Callable[[Path], Any] = lambda folder: None) -> Callable[[Path], Any]:
    """Index pictures of colours by their paths, change something, index again, and search for red."""

    def run(folder: Path) -> Any:
        colours = {'red': (200, 0, 0), 'blue': (0, 0, 200)}
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(name, np.full((8, 8, 3), colours[Path(name).stem.partition('_')[0]], np.uint8)[..., ::-1])
        Path('photos').mkdir(exist_ok=True)
        torch.manual_seed(0)
        search = RetrievalInferencer(_world['config'](), None, 'cpu')
        search.index('photos', 'index')
        change(folder)
        search.index('photos', 'index')
        (found,) = search.search('red', top=9)
        return [os.path.relpath(file, folder) for file in found['files']], found['scores']

    return run


def _two_writers(folder: Path) -> Any:
    first = FeatureIndex.create('index', {}, 2)
    second = FeatureIndex.open('index')
    first.append(np.eye(2, dtype=np.float32), [{'file': 'a'}, {'file': 'b'}])
    second.append(np.eye(2, dtype=np.float32), [{'file': 'c'}, {'file': 'd'}])


def _circle(folder: Path) -> Any:
    Path('photos').mkdir()
    cv2.imwrite('photos/a.png', _RED)
    Path('photos/again').symlink_to(folder / 'photos')
    return [str(file) for file in files_of('photos/**/*.png', ('.png',))]


def _home(value: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        Path('t.txt').write_text('text')
        os.environ['FLORENCE_MM_HOME'] = value
        return str(home())

    return run


def _silent_server(folder: Path) -> Any:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return download(f'http://127.0.0.1:{server.getsockname()[1]}/w.pth', folder / 'w.pth', timeout=1)


def cases() -> list[BadInput]:
    """The inputs."""
    weights = '--model', DIGITS, '--checkpoint'
    grey = np.full((4, 4), 40000, np.int32)
    return [
        BadInput('no command of that name', _line('clasify'), says=("'clasify'", "did you mean 'classify'?")),
        BadInput('no model', _classify(FLORENCE_MM_MODEL=''), says='no model was chosen'),
        BadInput('a name misspelt', _classify('--model', NAME[:-1]), says=f"did you mean '{NAME}'?"),
        BadInput('a config without weights', _classify('--model', DIGITS), says='give --checkpoint FILE too'),
        BadInput('config and weights swapped', _classify('--model', 'w.pth', '--checkpoint', DIGITS), says='w.pth'),
        BadInput('a text as weights', _classify(*weights, 'w.pth'), says='w.pth cannot be read as a checkpoint'),
        BadInput('a folder as weights', _classify(*weights, 'empty'), says='empty is a folder without checkpoint.json'),
        BadInput('a folder as a config', _classify('--model', 'empty', '--checkpoint', 'w.pth'), says='config empty'),
        BadInput(
            'a number as test_dataloader',
            _classify(*weights, 'w.pth', '--cfg-options', 'test_dataloader=1'),
            says='test_dataloader is 1',
        ),
        BadInput(
            'a number as data set',
            _classify(*weights, 'w.pth', '--cfg-options', 'test_dataloader.dataset=1'),
            says='test_dataloader.dataset is 1',
        ),
        BadInput(
            'FLORENCE_MM_HOME is a file',
            _classify('--model', NAME, FLORENCE_MM_HOME='t.txt'),
            says='FLORENCE_MM_HOME t.txt is a file',
        ),
        BadInput('FLORENCE_MM_HOME of nobody', _home('~nobody9/x'), says='set FLORENCE_MM_HOME'),
        BadInput('FLORENCE_MM_HOME with spaces around', _home('  kept '), gives='kept'),
        BadInput('search without an index', _line('search', 'a dog', '--index', 'empty'), says='empty is no index'),
        BadInput('an index that is a file', _line('search', 'a dog', '--index', 't.txt'), says='t.txt is no index'),
        BadInput('index.json is a list', _line('search', 'a dog', '--index', 'list'), says='holds a list'),
        BadInput('nothing to search for', _line('search', '--index', 'bare'), says='nothing to search for'),
        BadInput('nothing to index', _line('search', 'index', '--index', 'new'), says='needs files or folders'),
        BadInput('a damaged picture alone to index', _alone(b'no picture'), gives=(1, False)),
        BadInput('an empty picture alone to index', _alone(b''), gives=(1, False)),
        BadInput('an index of another dtype', _again(dtype='float16'), says=("dtype='float16'", 'has float32')),
        BadInput('an index of no such dtype', _again('new', dtype='int8'), says="dtype is 'int8'"),
        BadInput('an index in a folder of pictures', _again('photos'), says='photos is no index and not empty'),
        BadInput('results into the index', _again(out_dir='index'), says='out_dir index is the folder of an index'),
        BadInput('results into a file', _again(out_dir='red.png'), says='red.png'),
        BadInput('drawings of a search among the pictures', _again(out_dir='photos/found', then=_count), gives=(1, 1)),
        BadInput('a picture named as a drawing', _again(then=_named), gives=(2, 0)),
        BadInput(
            'generation is a text',
            _opened({'generation': 'x'}),
            says='no usable',
        ),
        BadInput('dims is true', _opened({'dims': True}), says='no usable'),
        BadInput('dims is huge', _opened({'dims': 10**30}), gives=0),
        BadInput('items without rows', _opened({}, b'{"file": "a"}\n'), says='0 rows'),
        BadInput('items that are bytes', _opened({}, b'\xff\x00\n'), says='line 1'),
        BadInput('a picture from the web, switched off', _web(FLORENCE_MM_OFFLINE='1'), says='switches downloads off'),
        BadInput('a switch that is no switch', _web(FLORENCE_MM_OFFLINE='maybe'), says='FLORENCE_MM_OFFLINE=maybe'),
        BadInput('results into a folder', _classify(*weights, 'w.pth', '--out', 'empty'), says='w.pth cannot be read'),
        BadInput(
            'results in place of the picture',
            _classify(*weights, 'w.pth', '--out', 'a.png'),
            says='--out a.png is the input a.png',
        ),
        BadInput('an index of another version', lambda folder: FeatureIndex.open(_head({'version': 0})), says='0'),
        BadInput(
            'an index without dims', lambda folder: FeatureIndex.open(_head({'version': 1})), says='no usable dims'
        ),
        BadInput('the page with no index', _line('demo', '--index', 'empty'), says='empty is no index'),
        BadInput('the page with a port too high', _line('demo', '--port', 99999), says='--port'),
        BadInput('the page with port 0', _line('demo', '--port', 0), says='--port'),
        BadInput('convert to another suffix', _line('convert', 'w.pth', 'o.pth'), says='o.pth must end in'),
        BadInput('export to no suffix', _line('export', DIGITS, 'w.pth', 'empty'), says='no suffix'),
        BadInput('evaluate no such suite', _line('evaluate', '--suite', 'x'), says="no suite 'x'"),
        BadInput('float picture of Pillow', _pillow(np.ones((4, 4), np.float32)), says='mode F, whose white'),
        BadInput('32-bit picture of Pillow', _pillow(grey), says='mode I, whose white is unknown'),
        BadInput('32-bit picture of Pillow up to 255', _pillow(grey // 256), gives=[156] * 3),
        BadInput('16-bit picture of Pillow', _pillow(grey.astype(np.uint16)), gives=[156] * 3),
        BadInput('CMYK picture of Pillow', _label(Image.fromarray(_RED).convert('CMYK')), gives='red'),
        BadInput('float array', _label(_RED / 255), says=('(8, 8, 3)', 'float64')),
        BadInput('grey array', _label(_RED[..., 0]), says='(8, 8)'),
        BadInput('array with alpha', _label(np.dstack([_RED, _RED[..., :1]])), says='(8, 8, 4)'),
        BadInput('array turned in memory', _label(np.ascontiguousarray(_RED[..., ::-1])[..., ::-1]), gives='red'),
        BadInput('a tensor', _label(torch.from_numpy(_RED)), says='neither a file nor a folder'),
        BadInput('a class with a comma in a list', _label(_RED, ['so, grey', 'red']), gives='red'),
        BadInput('a class twice', _label(_RED, 'red, blue, red'), gives='red'),
        BadInput('no class between commas', _label(_RED, ' , '), says='has no class name'),
        BadInput('a circle of links under **', _circle, gives=['photos/a.png']),
        BadInput(
            'two pictures of one name',
            _searching('photos/a/red.png', 'photos/b/red.png'),
            gives=(['photos/a/red.png', 'photos/b/red.png'], [1.0, 1.0]),
        ),
        BadInput(
            'a folder renamed',
            _searching('photos/a/red.png', change=lambda folder: Path('photos/a').rename('photos/c')),
            gives=(['photos/c/red.png'], [1.0]),
        ),
        BadInput(
            'a picture replaced',
            _searching(
                'photos/red_1.png', 'blue.png', change=lambda folder: Path('blue.png').replace('photos/red_1.png')
            ),
            gives=(['photos/red_1.png'], [0.0]),
        ),
        BadInput('a folder without pictures', _searching(), says='has no images'),
        BadInput('an index that became empty', _emptied, says='the index index has no images'),
        BadInput('two writers of one index', _two_writers, says='another process writes to the index'),
        BadInput('a server that sends nothing', _silent_server, says='is not answered within 1 s', seconds=20),
    ]


def _head(content: Any, lines: bytes = b'') -> str:
    Path('index').mkdir()
    Path('index/index.json').write_text(json.dumps(content))
    Path('index/items.jsonl').write_bytes(lines)
    return 'index'


def _opened(change: dict, lines: bytes = b'') -> Callable[[Path], Any]:
    """Open an index whose head has other values; its number of items."""
    return lambda folder: len(FeatureIndex.open(_head(_GOOD | change, lines)))


def _alone(data: bytes) -> Callable[[Path], Any]:
    """Index one file; the number of failures, and whether there is an index now."""

    def run(folder: Path) -> Any:
        Path('a.png').write_bytes(data)
        report = RetrievalInferencer(_world['config'](), None, 'cpu').index('a.png', 'index')
        return len(report.failed), Path('index').exists()

    return run


def _again(path: str = 'index', dtype: str | None = None, out_dir: str | None = None, then: Any = None) -> Any:
    """Index a folder, search it, and index it again."""

    def run(folder: Path) -> Any:
        Path('photos').mkdir()
        for name in ('photos/red.png', 'red.png'):
            cv2.imwrite(name, _RED[..., ::-1])
        search = RetrievalInferencer(_world['config'](), None, 'cpu')
        search.index('photos', 'index')
        search.search('red', out_dir=out_dir)
        return then(search) if then else search.index('photos', path, dtype)

    return run


def _count(search: RetrievalInferencer) -> Any:
    report = search.index('photos', 'index')
    return report.unchanged, report.drawings


def _named(search: RetrievalInferencer) -> Any:
    cv2.imwrite('photos/search.png', _RED)
    Path('photos/search.json').write_text('["index", "queries"]')
    report = search.index('photos', 'index')
    return report.unchanged + report.added, report.drawings


def _web(**variables: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        os.environ.update(variables)
        return ImageInferencer(_world['config'](), None, 'cpu')('http://127.0.0.1:9/a.png', 'red', skip_bad=False)

    return run


def _emptied(folder: Path) -> Any:
    cv2.imwrite('red.png', _RED)
    search = RetrievalInferencer(_world['config'](), None, 'cpu')
    search.index('red.png', 'index')
    Path('red.png').unlink()
    search.index('red.png', 'index')
    return search.search('red')
