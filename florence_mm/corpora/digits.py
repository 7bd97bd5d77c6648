"""Embedded digits: the 1797 real handwritten 8x8 images in scikit-learn.

They are the test part of the "Optical Recognition of Handwritten Digits" set (UCI repository, 43 writers),
as :func:`sklearn.datasets.load_digits` ships them. The split is fixed once for all uses of the project:

    within each digit, order the images by the SHA-256 of their 64 pixel bytes; the first quarter (rounded)
    is the test split, the rest the training split.

It does not depend on a random generator, equal images are never split, and all data sets composed of digits use
it, so that a test digit is never trained on.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from florence_mm.errors import DataError
from florence_mm.language.prompts import get_class_names
from florence_mm.utils.files import write_atomic

Split = Literal['train', 'test']

CAPTIONS = (
    'the handwritten digit {}',
    'a handwritten {}',
    'a small picture of the digit {}',
    'the number {} written by hand',
)
# SHA-256 of scikit-learn's pixels and labels; detects another edition of the data
_DATA_SHA256 = '65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5'


@cache
def _digits() -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """Images (1797, 8, 8) uint8 from 0 to 16, labels (1797,), SHA-256 of each image, test mask (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn; install it with 'pip install scikit-learn'") from None
    data = load_digits()
    images = data.images.astype(np.uint8)
    labels = data.target.astype(np.int64)
    found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if found != _DATA_SHA256:
        raise DataError(
            f'the digits of the installed scikit-learn have SHA-256 {found[:12]}..., not {_DATA_SHA256[:12]}..., '
            'so the fixed split does not apply; install scikit-learn 1.x'
        )
    hashes = tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        indices = np.flatnonzero(labels == digit)
        ordered = sorted(indices, key=hashes.__getitem__)
        test[ordered[: round(len(ordered) / 4)]] = True
    return images, labels, hashes, test


def digit_indices(split: Split) -> np.ndarray:
    """Indices of a split's images in scikit-learn's order, ascending: ``(1347,)`` train, ``(450,)`` test."""
    if split not in ('train', 'test'):
        raise ValueError(f"split={split!r} must be 'train' or 'test'")
    return np.flatnonzero(_digits()[3] == (split == 'test'))


def load_digits_split(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Load the digits of a split as arrays.

    Args:
        split (str): 'train' (1347 images) or 'test' (450).

    Returns:
        tuple: images ``(N, 8, 8)`` float32 from 0 (paper) to 1 (ink), labels ``(N,)`` int64 from 0 to 9.

    Raises:
        ImportError: scikit-learn is not installed.
        DataError: its data differ from those of the fixed split.
    """
    images, labels, _, _ = _digits()
    indices = digit_indices(split)
    return images[indices].astype(np.float32) / 16, labels[indices]


def render_digit(image: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a digit ``(8, 8)`` from 0 to 1 to ``(size, size)`` uint8, bicubically.

    Strokes touch the border of the 8x8 image, so a margin of a tenth is added for shifts and rotations.
    """
    margin = size // 10
    inner = size - 2 * margin
    large = cv2.resize(image.astype(np.float32) * 255, (inner, inner), interpolation=cv2.INTER_CUBIC)
    return np.pad(np.clip(np.rint(large), 0, 255).astype(np.uint8), margin)


def _train_row(file: str, name: str, digest: str) -> dict:
    # half of the images have a class, the others a caption; a fifth of the captions is the bare name, which
    # shares its label with the class
    choice = int(digest[-8:], 16)
    if choice % 2 == 0:
        return {'image': file, 'class': name}
    phrases = (*CAPTIONS, '{}')
    return {'image': file, 'text': phrases[choice // 2 % len(phrases)].format(name)}


def _lines(rows: list[dict]) -> bytes:
    return ''.join(json.dumps(row) + '\n' for row in rows).encode()


def _files(size: int) -> Iterator[tuple[str, bytes]]:
    names = get_class_names('digits')
    hashes = _digits()[2]
    for split in ('train', 'test'):
        rows, classes = [], []
        images, labels = load_digits_split(split)
        for index, image, label in zip(digit_indices(split), images, labels, strict=True):
            file = f'{split}/{index:04d}_{names[label]}.png'
            yield file, cv2.imencode('.png', render_digit(image, size))[1].tobytes()
            if split == 'train':
                rows.append(_train_row(file, names[label], hashes[index]))
                classes.append({'image': file, 'class': names[label]})
            else:
                captions = [phrase.format(names[label]) for phrase in CAPTIONS]
                rows.append({'image': file, 'class': names[label], 'texts': captions})
        # manifests come after their images, so that what they list is there
        if classes:
            yield f'{split}_classes.jsonl', _lines(classes)
        yield f'{split}.jsonl', _lines(rows)


def write_digits(out: str | Path, size: int = 32) -> tuple[int, int]:
    """Write the digits as PNG files with ``train.jsonl`` and ``test.jsonl`` for :class:`ImageTextManifest`.

    Half of the training images have a class ("seven"), the others a caption ("the handwritten digit seven",
    or just "seven"); in ``train_classes.jsonl``, for classifiers, all have the class. Test images have the class and
    four captions. Correct files that exist are kept, each file is written atomically, and other files in the folder
    stay.

    Args:
        out (str | Path): The folder.
        size (int): Width and height of the images.

    Returns:
        tuple: number of files written, and number of files in all.
    """
    if size < 8:
        raise ValueError(f'size={size} must be at least 8, the size of the original images')
    out = Path(out)
    written = total = 0
    for name, data in _files(size):
        path = out / name
        total += 1
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data, durable=False)  # a damaged one is found and written again
            written += 1
    return written, total
