"""Bad inputs: pictures in a folder for each class."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from florence_mm.datasets import ImageFolderText

from .case import BadInput

AREA = 'class folders'
PETS = ('Beagle', 'cat', 'guinea_pig')
PACK = [{'type': 'LoadImage'}, {'type': 'PackImageText'}]


def _load(folder: Path, folders: tuple[str, ...] = PETS, **settings: Any) -> dict[str, str]:
    """Text of the picture of each folder."""
    for number, name in enumerate(folders):
        (folder / 'pictures' / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'pictures' / name / 'a.png'), np.full((4, 4, 3), number, np.uint8))
    dataset = ImageFolderText(str(folder / 'pictures'), **{'pipeline': PACK, **settings})
    return {folders[int(data['inputs'].max())]: data['data_samples'].text for data in dataset}


def _names(*names: str, folders: tuple[str, ...] = PETS) -> Callable[[Path], Any]:
    return lambda folder: _load(folder, folders, class_names=list(names))


def _file(content: bytes, name: str = 'names.txt') -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / name).write_bytes(content)
        return _load(folder, class_names=str(folder / name))

    return run


def _beside(make: Callable[[Path], Any], **settings: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'pictures/cat').mkdir(parents=True)
        make(folder / 'pictures')
        return _load(folder, **settings)

    return run


def _bytes_name(folder: Path) -> None:
    with open(os.fsencode(folder) + b'/cat/\xff.png', 'wb') as file:  # noqa: PTH123
        file.write(b'x')


def _crossed(root: Path) -> None:
    (root / 'guinea_pig').mkdir()
    (root / 'cat/other').symlink_to(root / 'guinea_pig')
    (root / 'guinea_pig/other').symlink_to(root / 'cat')


def cases() -> list[BadInput]:
    own = {'Beagle': 'beagle', 'cat': 'cat', 'guinea_pig': 'guinea pig'}
    other = {'Beagle': 'hound', 'cat': 'tabby', 'guinea_pig': 'rodent'}
    spaced = {**own, 'Beagle': 'Beagle'}
    dozen = tuple(str(number) for number in range(12))
    rows = [
        BadInput('names in another order than the folders', _names('guinea pig', 'cat', 'beagle'), gives=own),
        BadInput('names in the order of the folders', _names('beagle', 'cat', 'guinea pig'), gives=own),
        BadInput(
            'names of folders with underscores', _names('cat', 'guinea_pig', 'Beagle'), gives={n: n for n in PETS}
        ),
        BadInput('other names', _names('hound', 'tabby', 'rodent'), gives=other),
        BadInput('a misspelt name among names of folders', _names('cat', 'beegle', 'guinea pig'), ("'Beagle'", 'dict')),
        BadInput('names of folders in sentences, shuffled', _names('a cat', 'a beagle', 'a pet'), ("'a cat'", 'dict')),
        BadInput('a name twice', _names('cat', 'cat', 'beagle'), ('guinea_pig', 'dict')),
        BadInput('too few names', _names('cat', 'beagle'), ('3 class folders', '2 names')),
        BadInput('too many names', _names('cat', 'beagle', 'guinea pig', 'dog'), ('3 class folders', '4 names')),
        BadInput('folders Cat and cat', _names('cat', 'Cat', folders=('Cat', 'cat')), 'upper and lower case'),
        BadInput(
            'folders 0 to 11', _names(*(f'n{x}' for x in dozen), folders=dozen), gives={x: f'n{x}' for x in dozen}
        ),
        BadInput(
            'folders 1 to 12',
            _names(*dozen[:4], *'abcdefgh', folders=tuple(str(x + 1) for x in range(12))),
            ('class_names', 'dict'),
        ),
        BadInput('names by folder', lambda folder: _load(folder, class_names=other), gives=other),
        BadInput('a folder without a name', lambda folder: _load(folder, class_names={'cat': 'x'}), "'Beagle'"),
        BadInput('a name without a folder', lambda folder: _load(folder, class_names={**other, 'cow': 'x'}), "'cow'"),
        BadInput('known names of another number', lambda folder: _load(folder, class_names='digits'), '10 names'),
        BadInput('names in JSON cut off', _file(b'{"cat": "t', 'names.json'), 'names.json'),
        BadInput('names in JSON nested 100,000 deep', _file(b'[' * 100_000, 'names.json'), 'nested too deeply'),
        BadInput('names in JSON in Latin-1', _file(b'{"cat": "caf\xe9"}', 'names.json'), 'UTF-8'),
        BadInput(
            'names in JSON with a key twice', _file(b'{"cat": "a", "cat": "b"}', 'names.json'), "'cat' occurs twice"
        ),
        BadInput('names in JSON that is a number', _file(b'7', 'names.json'), 'names.json'),
        BadInput('names in a JSON file that is missing', lambda f: _load(f, class_names='no.json'), 'no.json'),
        BadInput('names in JSON in UTF-16', _file(json.dumps(other).encode('utf-16'), 'names.json'), gives=other),
        BadInput('names in Latin-1', _file(b'caf\xe9\ncat\ndog\n'), 'UTF-8'),
        BadInput('names in a picture', _file(b'\x89PNG\r\n\x1a\n' + bytes(range(256))), 'UTF-8'),
        BadInput('names in JSON by the name of a text', _file(b'["Beagle",\n"cat",\n"dog"]'), 'is JSON'),
        BadInput('names with a byte order mark', _file(b'\xef\xbb\xbfBeagle\ncat\nguinea pig\n'), gives=spaced),
        BadInput(
            'a picture beside the folders',
            _beside(lambda root: cv2.imwrite(str(root / 'lost.png'), np.zeros((4, 4, 3), np.uint8))),
            ('lost.png', 'no class folder'),
        ),
        BadInput(
            'a picture beside the folders, skipped',
            _beside(lambda root: (root / 'lost.png').touch(), skip_bad={'max': 1}),
            gives=spaced,
        ),
        BadInput('notes beside the folders', _beside(lambda root: (root / 'a.txt').touch()), gives=spaced),
        BadInput('an empty class folder', _beside(lambda root: (root / 'cow').mkdir()), ('cow', 'empty')),
        BadInput('a text among pictures', _beside(lambda root: (root / 'cat/a.txt').touch()), ('a.txt', '.png')),
        BadInput('a named pipe among pictures', _beside(lambda root: os.mkfifo(root / 'cat/p.png')), 'named pipe'),
        BadInput(
            'a named pipe among pictures, skipped',
            _beside(lambda root: os.mkfifo(root / 'cat/p.png'), skip_bad={'max': 1}, test_mode=True),
            gives=spaced,
        ),
        BadInput('a file name that is not UTF-8', _beside(_bytes_name), (r'\xff.png', 'rename')),
        BadInput('a link that leads nowhere', _beside(lambda root: (root / 'cat/b.png').symlink_to('no')), 'b.png'),
        BadInput(
            'a link to the folder around it',
            _beside(lambda root: (root / 'cat/around').symlink_to(root / 'cat')),
            gives=spaced,
        ),
        BadInput(
            'a link to the folder of all classes',
            _beside(lambda root: (root / 'cat/all').symlink_to(root)),
            gives=spaced,
        ),
        BadInput(
            'a class folder that is a link to another',
            _beside(lambda root: (root / 'cow').symlink_to(root / 'cat')),
            ('cat', 'cow', 'remove the link'),
        ),
        BadInput(
            'two classes with links to each other',
            _beside(_crossed),
            ('cat', 'guinea_pig', 'remove the link'),
        ),
        BadInput(
            'a class folder that is a link to nothing', _beside(lambda root: (root / 'cow').symlink_to('no')), 'cow'
        ),
        BadInput(
            'a class folder that is a link to itself', _beside(lambda root: (root / 'cow').symlink_to('cow')), 'cow'
        ),
        BadInput('a folder whose name is blank', _beside(lambda root: (root / '\u200b').mkdir()), 'empty'),
        BadInput('a folder without class folders', lambda folder: ImageFolderText(str(folder)), 'no class folders'),
        BadInput('a folder that is missing', lambda folder: ImageFolderText(str(folder / 'no')), 'no image folder'),
    ]
    for value in (7, True, {'cat': None}, {'cat': ''}, {7: 'cat'}, [], [None, 'a', 'b'], ['a', '', 'b'], 'no.txt'):
        says = ('no.txt',) if value == 'no.txt' else ('class',)
        rows.append(
            BadInput(f'class_names={value!r}', lambda folder, value=value: _load(folder, class_names=value), says)
        )
    for value in ('.png', 'png', ['png'], [], 7, None, [7]):
        run = lambda folder, value=value: _load(folder, extensions=value)  # noqa: E731
        rows.append(BadInput(f'extensions={value!r}', run, 'extensions'))
    return rows
