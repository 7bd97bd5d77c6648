"""CIFAR-10 and CIFAR-100 as published (cs.toronto.edu/~kriz/cifar.html): the Python version and the binary version.

The Python version consists of pickles, which may run code when they are loaded. Here nothing of a pickle is called:
numpy's constructors, which the published files name, are replaced by records of what the file says, and any other
name is refused.
"""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from florence_mm.errors import DataError
from florence_mm.utils.plain_pickle import UnpicklingRefused, load_plain
from florence_mm.utils.reading import read_bytes
from florence_mm.utils.text_files import read_lines

from .listing import LabelledImages, check_split

_PIXELS = 3 * 32 * 32
_LARGEST = 2**29  # bytes of one file; the published ones have at most 185 MB


class _Layout(NamedTuple):
    python: str
    binary: str
    train: tuple[str, ...]
    binary_train: tuple[str, ...]
    test: str
    binary_test: str
    labels: bytes
    names: tuple[str, bytes]
    binary_names: str
    label_bytes: int


_LAYOUTS = {
    10: _Layout(
        'cifar-10-batches-py',
        'cifar-10-batches-bin',
        tuple(f'data_batch_{i}' for i in range(1, 6)),
        tuple(f'data_batch_{i}.bin' for i in range(1, 6)),
        'test_batch',
        'test_batch.bin',
        b'labels',
        ('batches.meta', b'label_names'),
        'batches.meta.txt',
        1,
    ),
    100: _Layout(
        'cifar-100-python',
        'cifar-100-binary',
        ('train',),
        ('train.bin',),
        'test',
        'test.bin',
        b'fine_labels',
        ('meta', b'fine_label_names'),
        'fine_label_names.txt',
        2,  # the coarse label stands before the fine one
    ),
}


def read_cifar(data_root: Path, split: str, classes: int) -> LabelledImages:
    """Read CIFAR-10 or CIFAR-100 from ``cifar-10-batches-py``, ``cifar-10-batches-bin`` or their like for 100.

    Args:
        data_root: folder of the unpacked folder.
        split: ``'train'`` or ``'test'``.
        classes: 10 or 100.

    Raises:
        DataError: files are missing, damaged or hold something else.
    """
    check_split(split, ('train', 'test'))
    layout = _LAYOUTS[classes]
    folder = data_root / layout.python
    if folder.is_dir():
        read, files = _read_python, layout.train if split == 'train' else (layout.test,)
        file, key = layout.names
        names = [_text(name, folder / file) for name in _entry(_load(folder / file), key, list, folder / file)]
    else:
        folder = data_root / layout.binary
        read, files = _read_binary, layout.binary_train if split == 'train' else (layout.binary_test,)
        names = read_lines(folder / layout.binary_names, 'the name of a class a line')
    parts = [read(folder / file, layout, len(names)) for file in files]
    pixels = np.concatenate([part for part, _ in parts])
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
    return LabelledImages(images, np.concatenate([labels for _, labels in parts]), tuple(names), folder)


def _read_python(path: Path, layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = _load(path)
    pixels, labels = _entry(content, b'data', np.ndarray, path), _entry(content, layout.labels, list, path)
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) != len(labels):
        raise DataError(
            f'{path} has data of shape {pixels.shape} and {len(labels)} labels; expected (N, {_PIXELS}) and N'
        )
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise DataError(f'{path} has labels that are no whole numbers from 0 to {classes - 1}; download it again')
    return pixels, np.array(labels, dtype=np.int64)


def _read_binary(path: Path, layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    data, size = read_bytes(path, what='file', limit=_LARGEST), layout.label_bytes + _PIXELS
    if not data or len(data) % size:
        raise DataError(f'{path} has {len(data)} bytes, no multiple of {size}; it is cut off, so download it again')
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        raise DataError(f'{path} has the label {labels.max()}; expected 0 to {classes - 1}, so download it again')
    return records[:, layout.label_bytes :], labels


def _entry(content: Any, key: bytes, kind: type, path: Path) -> Any:
    if not isinstance(content, dict):
        raise DataError(f'{path} holds no table of labels and pixels; download it again')
    # a pickle written by Python 3 has texts for keys
    value = content.get(key, content.get(key.decode()))
    value = value.array() if isinstance(value, _Array) else value
    if not isinstance(value, kind):
        raise DataError(f'{path} has no {key.decode()!r} of the published kind; download it again')
    return value


def _text(value: Any, path: Path) -> str:
    text = value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise DataError(f'{path} has a class name that is no text; download it again')
    return text


class _Array:
    """What a pickle says of an array: nothing of numpy's is called with it."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray | None:
        """The array, if it is one of bytes."""
        state = self.state
        right = isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], bytes)
        right = right and isinstance(state[1], tuple) and all(type(size) is int and size >= 0 for size in state[1])
        right = right and isinstance(state[2], _Dtype) and state[2].args[:1] in (('u1',), (b'u1',))
        if not right or int(np.prod(state[1], dtype=object)) != len(state[4]):
            return None
        return np.frombuffer(state[4], np.uint8).reshape(state[1], order='F' if state[3] else 'C')


class _Dtype:
    """What a pickle says of a dtype."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _encode(text: Any, encoding: Any = 'latin1') -> bytes:
    # pickles of Python 3 write bytes for Python 2 as a text to be encoded
    if not isinstance(text, str) or encoding != 'latin1':
        raise pickle.UnpicklingError('bytes of another form')
    return text.encode('latin1')


#: What stands in for the names that the published files use.
_KNOWN = {
    ('numpy.core.multiarray', '_reconstruct'): lambda *_: _Array(),
    ('numpy._core.multiarray', '_reconstruct'): lambda *_: _Array(),
    ('numpy', 'ndarray'): 'ndarray',
    ('numpy', 'dtype'): lambda *args: _Dtype(*args),
    ('_codecs', 'encode'): lambda *args: _encode(*args),
}


def _load(path: Path) -> Any:
    data = read_bytes(path, what='file', limit=_LARGEST)
    try:
        return load_plain(data, _KNOWN, encoding='bytes')
    except UnpicklingRefused as error:
        raise DataError(f'{path} is not a file of CIFAR ({error}); download it again') from None
