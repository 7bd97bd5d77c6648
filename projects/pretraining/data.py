"""Pictures of one or two digits, a mixture of class-labelled data and captions: ``digit_pairs``.

A picture of one digit has its class, so that many pictures share one text. A fifth of these have the class in a
template already, as the augmented rows of FLD-900M do. A picture of two digits has four captions. Digits are those of
:mod:`florence_mm.corpora.digits`, so that a test digit is never trained on.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from florence_mm.corpora.digits import Split, load_digits_split
from florence_mm.corpora.generated import write_generated
from florence_mm.language.prompts import SIMPLE_TEMPLATES, get_class_names

#: Height and width of a picture, and the heights of a digit, in pixels; of two, each is half as wide as the picture.
SIDE, SMALLEST, LARGEST = 48, 20, 48
#: Pictures of one digit and of two.
COUNTS: dict[Split, tuple[int, int]] = {'train': (1600, 2400), 'test': (600, 400)}
#: Every fifth class-labelled picture has its class in a template already.
AUGMENTED_EVERY = 5
CAPTIONS = ('{} and {}', 'the digit {} beside {}', '{} on the left and {} on the right', 'first {}, then {}')


def write_digit_pairs(out: Path) -> None:
    """Write the pictures and four manifests; what is there and right is kept.

    ``train.jsonl``, ``classes.jsonl`` (its pictures of one digit, all with their class), ``test_classes.jsonl`` and
    ``test_captions.jsonl``.
    """
    total = sum(map(sum, COUNTS.values())) + 4
    options = {'version': 1, 'counts': COUNTS}
    write_generated(out, 'digit_pairs.json', options, _files(), total, 'drawing pairs of digits')


def _files() -> Iterator[tuple[str, bytes]]:
    rows: dict[Split, list[dict]] = {}
    for split in COUNTS:
        rows[split] = []
        for row, picture in _pairs(split):
            yield row['image'], picture
            rows[split].append(row)
    train, test = rows['train'], rows['test']
    single = [row for row in train if 'texts' not in row]
    manifests = {
        'train': train,
        'classes': [{'image': row['image'], 'class': row.get('class') or row['label']} for row in single],
        'test_classes': [row for row in test if 'class' in row],
        'test_captions': [row for row in test if 'texts' in row],
    }
    for name, listed in manifests.items():
        yield f'{name}.jsonl', ''.join(json.dumps(row) + '\n' for row in listed).encode()


def _pairs(split: Split) -> Iterator[tuple[dict, bytes]]:
    """Rows of the manifest with their pictures."""
    images, labels = load_digits_split(split)
    names = get_class_names('digits')
    ones, twos = COUNTS[split]
    for number in range(ones + twos):
        rng = np.random.default_rng([*split.encode(), number])
        chosen = rng.integers(len(images), size=1 if number < ones else 2)
        row = _row(f'{split}/{number:04d}.png', [names[label] for label in labels[chosen]], split, number)
        yield row, _picture(rng, images[chosen])


def _row(file: str, words: list[str], split: Split, number: int) -> dict:
    if len(words) == 2:
        return {'image': file, 'texts': [caption.format(*words) for caption in CAPTIONS]}
    if split == 'test' or number % AUGMENTED_EVERY:
        return {'image': file, 'class': words[0]}
    # not the first template, which is the bare name
    template = SIMPLE_TEMPLATES[1 + number // AUGMENTED_EVERY % (len(SIMPLE_TEMPLATES) - 1)]
    return {'image': file, 'text': template.format(*words), 'label': words[0], 'augmented': True}


def _picture(rng: np.random.Generator, digits: np.ndarray) -> bytes:
    """Draw one digit of any size anywhere, or two side by side, of heights of their own, as PNG."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for place, digit in enumerate(digits):
        height = rng.integers(SMALLEST, LARGEST + 1)
        width = height if len(digits) == 1 else SIDE // 2
        row, column = rng.integers(SIDE - height + 1), place * SIDE // 2
        if len(digits) == 1:
            column = rng.integers(SIDE - width + 1)
        ink = cv2.resize(255 * digit, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
        canvas[row : row + height, column : column + width] = np.clip(np.rint(ink), 0, 255)
    return cv2.imencode('.png', canvas)[1].tobytes()
