"""Bad inputs: cropping, few-shot subsets and pseudo boxes, and the pictures of detection sets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from florence_mm.datasets import DetectionDataset
from florence_mm.datasets.transforms.loading import LoadImage
from florence_mm.evaluation import DetectionMetric
from florence_mm.formats.rows import read_rows
from florence_mm.preparation.box_crops import write_box_crops
from florence_mm.preparation.few_shot import write_few_shot
from florence_mm.preparation.merging import write_pseudo_boxes
from florence_mm.preparation.pseudo_boxes import image_classes

from .case import BadInput, command
from .coco import changed, content

AREA = 'pictures, crops, subsets and pseudo boxes of detection data'
ROWS = (
    {'image': '', 'class': 'cat'},
    {'image': '1.png', 'class': ' '},
    {'image': 1, 'class': 'cat'},
    {'image': '1.png'},
    {'image': '1.png', 'class': ['cat']},
    {'class': 'cat'},
)


def write(data: Any = None, name: str = 'a.json') -> None:
    """Write an annotation file and its two pictures into the current folder."""
    data = content() if data is None else data
    Path(name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    for image in ('1', '2'):
        cv2.imwrite(f'{image}.png', np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))


def crops(data: Any = None, pictures: Callable[[], Any] = lambda: None, **settings: Any) -> Callable[[Path], dict]:
    """Crop the boxes after ``pictures`` has changed something."""

    def run(folder: Path) -> dict:
        write(data)
        pictures()
        return write_box_crops('a.json', '.', **{'out': 'crops', 'size': 8, **settings})

    return run


def few_shot(data: Any = None, out: str = 'few.json', shots: Any = 1) -> Callable[[Path], dict]:
    """Write a few-shot subset: the number of images of each class."""

    def run(folder: Path) -> dict:
        write(data)
        Path('link.json').symlink_to('a.json')
        return write_few_shot('a.json', out, shots)

    return run


def pseudo(rows: Any = (('1.png', 'cat'),), out: str = 'boxes.json', **settings: Any) -> Callable[[Path], int]:
    """Write pseudo boxes with a detector of one box: the number of boxes."""

    def run(folder: Path) -> int:
        write()
        found = np.array([[0, 0, 9, 9.0]]), np.array([0.9]), ['cat'], (30, 40)
        return write_pseudo_boxes(rows, lambda path: found, out, **settings).boxes

    return run


def picture(change: Callable[[Path], Any], loader: Callable, **settings: Any) -> Callable[[Path], int]:
    """Load the second picture, changed before, as training data: id of the image that comes."""

    def run(folder: Path) -> int:
        write(content(annotations=[]))
        change(Path('2.png'))
        return DetectionDataset('a.json', pipeline=[loader], **settings)[1]['img_id']

    return run


def _turned(path: Path, orientation: int, size: tuple[int, int], kind: str) -> None:
    image = Image.new('RGB', size, 'red')
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, kind, exif=exif)


def _cut(path: Path, kind: str, kept: float) -> None:
    data = cv2.imencode(f'.{kind}', cv2.imread(str(path)))[1].tobytes()
    path.write_bytes(data[: int(len(data) * kept)])


def _pictures() -> list[BadInput]:
    rows = []
    faults = {
        'an empty picture': (lambda path: path.write_bytes(b''), 'is an empty file'),
        'a picture of text': (lambda path: path.write_text('no picture'), 'is not an image'),
        'a PNG cut at half': (lambda path: _cut(path, 'png', 0.5), 'is cut off'),
        'a PNG cut at its last bytes': (lambda path: _cut(path, 'png', 0.995), 'is cut off'),
        'a JPEG cut at half': (lambda path: _cut(path, 'jpg', 0.5), 'is cut off'),
        'a JPEG cut at its last tenth': (lambda path: _cut(path, 'jpg', 0.9), 'is cut off'),
        'a JPEG cut in its header': (lambda path: _cut(path, 'jpg', 0.05), 'is cut off'),
        'a folder for a picture': (lambda path: (path.unlink(), path.mkdir()), 'is a folder'),
        'a picture of another size': (lambda path: cv2.imwrite(str(path), np.zeros((40, 30, 3), np.uint8)), '30x40'),
        'a larger picture': (lambda path: cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8)), '80x60'),
        'a picture turned by its EXIF': (lambda path: _turned(path, 6, (40, 30), 'JPEG'), '30x40'),
    }
    right = {
        'a picture that is upright by its EXIF': lambda path: _turned(path, 6, (30, 40), 'JPEG'),
        'a picture upside down by its EXIF': lambda path: _turned(path, 3, (40, 30), 'JPEG'),
        'a grey picture': lambda path: cv2.imwrite(str(path), np.zeros((30, 40), np.uint8)),
        'a BMP named PNG': lambda path: path.write_bytes(cv2.imencode('.bmp', np.zeros((30, 40, 3), np.uint8))[1]),
    }
    for package, loader in (('mmcv', LoadImageFromFile()), ('florence_mm', LoadImage())):
        for words, (change, says) in faults.items():
            rows.append(BadInput(f'{words}, by {package}', picture(change, loader), ('a.json, image 2', '2.png', says)))
        rows += [
            BadInput(f'{words}, by {package}', picture(change, loader), gives=2) for words, change in right.items()
        ]
        skipped = picture(faults['an empty picture'][0], loader, skip_bad={'max': 1})
        rows.append(BadInput(f'an empty picture with skip_bad, by {package}', skipped, gives=1))
    backend = LoadImageFromFile(backend_args={'backend': 'local'})
    for words, (change, says) in faults.items():
        if 'folder' not in words:
            rows.append(BadInput(f'{words}, by a file backend', picture(change, backend), ('image 2', '2.png', says)))
    none = picture(faults['an empty picture'][0], LoadImage(), skip_bad={'max': 0})
    rows.append(BadInput('more empty pictures than skip_bad allows', none, ('2.png', 'skip_bad')))
    return rows


def _crops() -> list[BadInput]:
    def small() -> None:
        cv2.imwrite('1.png', np.zeros((10, 10, 3), np.uint8))

    def empty() -> None:
        Path('1.png').write_bytes(b'')

    def onto_pictures(folder: Path) -> Any:
        return crops(out=f'../{folder.name}')(folder)

    def from_its_list(folder: Path) -> Any:
        write(name='b.jsonl')
        return write_box_crops('b.jsonl', '.', 'b', 8)

    both, one = {'written': 2, 'crowd': 0, 'unusable': 0}, {'written': 1, 'crowd': 1, 'unusable': 0}
    huge = changed('images', width=10**9, height=10**9)
    rows = [
        BadInput('cropping as it should be', crops(), gives=both),
        BadInput('cropping a box to ignore', crops(changed('annotations', ignore=1)), gives=one),
        BadInput('cropping from a smaller picture', crops(pictures=small), ('image 1', '10x10', '40x30')),
        BadInput(
            'cropping from an empty picture', crops(pictures=lambda: Path('1.png').write_bytes(b'')), 'empty file'
        ),
        BadInput('cropping from a missing picture', crops(pictures=lambda: Path('1.png').unlink()), '1.png'),
        BadInput('cropping from an image of 10^9 pixels a side', crops(huge), '40x30'),
        BadInput(
            'crops into the folder of the pictures',
            lambda folder: crops(out=f'../{folder.name}')(folder),
            'is the input',
        ),
        BadInput('crops listed in the annotation file', from_its_list, 'b.jsonl'),
    ]
    sizes = (0, -8, 10**9, '8', 2.5, True, None)
    rows += [BadInput(f'crops of size {value!r}', crops(size=value), 'size') for value in sizes]
    rows += [BadInput(f'crops with the seed {value!r}', crops(seed=value), 'seed') for value in ('x', None, 1.5)]
    nan, inf = float('nan'), float('inf')
    for value in ((0, 1), (2, 1), (-1, 1), (nan, 1), (1, nan), (1, inf), (1,), (1e30, 1e30), 2, ('1', '2')):
        rows.append(BadInput(f'crops with the context {value}', crops(context=value), 'context'))
    return rows


def _few_and_pseudo() -> list[BadInput]:
    ignored, nan = changed('annotations', ignore=1), float('nan')
    rows = [
        BadInput('a few-shot subset as it should be', few_shot(), gives={'cat': 1, 'dog': 1}),
        BadInput('a few-shot subset with a box to ignore', few_shot(ignored), gives={'cat': 0, 'dog': 1}),
        BadInput('a few-shot subset of no boxes', few_shot(content(annotations=[])), 'no boxes'),
        BadInput('a few-shot subset with 0 images', few_shot(shots=0), 'at least 1'),
    ]
    for value in (1.5, '5', True, None, nan, float('inf')):
        rows.append(BadInput(f'a few-shot subset with {value!r} images', few_shot(shots=value), 'at least 1'))
    odd = content(info={'note': '\ud800'})
    rows.append(
        BadInput('a few-shot subset of a file with half a character', few_shot(odd), gives={'cat': 1, 'dog': 1})
    )
    for outs, says in ((('a.json', './a.json', 'link.json'), 'is the input'), (('.', '/', '..'), 'is a folder')):
        rows += [BadInput(f'a few-shot subset written to {out}', few_shot(out=out), says) for out in outs]
    rows += [
        BadInput('pseudo boxes as they should be', pseudo(), gives=1),
        BadInput('pseudo boxes of no images', pseudo(()), 'no images'),
        BadInput('pseudo boxes written to their picture', pseudo(out='1.png'), 'is the input'),
    ]
    for key, values in (
        ('score_thr', (-0.1, 1.1, nan, '0.5', None)),
        ('top_k', (0, -1, 1.5, '3', True, None)),
        ('max_bad', (-1, 1.5, 'x', nan)),
    ):
        rows += [BadInput(f'pseudo boxes with {key}={value!r}', pseudo(**{key: value}), key) for value in values]

    def manifest(text: str) -> Callable[[Path], Any]:
        def run(folder: Path) -> Any:
            Path('m.jsonl').write_text(text)
            return image_classes(read_rows('m.jsonl'), 'm.jsonl')

        return run

    for row in ROWS:
        rows.append(
            BadInput(f'pseudo boxes of the row {json.dumps(row)}', manifest(json.dumps(row)), 'm.jsonl, line 1')
        )

    def outfile(folder: Path) -> None:
        write(name='a.bbox.json')
        metric = DetectionMetric('a.bbox.json', outfile_prefix='a')
        metric.results = [(1, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))]
        metric.compute_metrics(metric.results)

    def pseudo_into_manifest(folder: Path) -> Any:
        Path('m.jsonl').write_text('')
        tool = 'tools/dataset_converters/pseudo_boxes.py'
        return command(tool, 'c.py', 'c.pth', 'm.jsonl', '--out', 'm.jsonl')

    rows.append(BadInput('detections written to the ground truth', outfile, 'is the input'))
    rows.append(BadInput('pseudo boxes written to the manifest', pseudo_into_manifest, ('--out', 'm.jsonl')))
    return rows


def cases() -> list[BadInput]:
    return [*_pictures(), *_crops(), *_few_and_pseudo()]
