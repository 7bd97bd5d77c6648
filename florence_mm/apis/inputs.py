"""Inputs of inferencers: kinds, folders, globs, pictures of Pillow; names of outputs; what is said of a failed one."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from florence_mm.errors import DataError, UsageError, shown, user_sentence
from florence_mm.utils.files import lies_in, short_stem

#: A file, a folder, a glob such as 'photos/*.jpg', a URL, an array (H, W, 3) uint8 RGB, or a picture of Pillow.
Picture = str | Path | np.ndarray | Image.Image

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_WEB = ('http://', 'https://')
_BYTE, _WORD = 255, 65535


@dataclass(frozen=True)
class InputKind:
    """What an inferencer takes.

    Attributes:
        name: one input in messages, as in "image".
        suffixes: suffixes of the files to list in folders.
        memory: types of inputs that are not paths.
    """

    name: str
    suffixes: tuple[str, ...]
    memory: tuple[type, ...] = ()

    @property
    def plural(self) -> str:
        """Several inputs in messages, as in "images"."""
        return f'{self.name}s'


PICTURES = InputKind('image', SUFFIXES, (np.ndarray, Image.Image))


class NoInput(NamedTuple):
    """What a generator gave that is no input.

    Attributes:
        sentence: what is wrong with it.
    """

    sentence: str


class ReadInput(NamedTuple):
    """An input that was read.

    Attributes:
        file: its file or URL; None for an array or a picture of Pillow.
        image: ``(H, W, 3)`` uint8 RGB; None if it cannot be read, and for videos, which are read later.
        error: the sentence that says why it cannot be read.
    """

    file: str | Path | None
    image: np.ndarray | None = None
    error: str | None = None


class Failed(str):
    """The sentence of an input that failed, in place of its prediction."""


def failure(error: Exception, name: str) -> Failed:
    """Describe in one sentence why an input failed.

    Args:
        error: what was raised.
        name: name of the input.

    Raises:
        Exception: ``error`` itself, if it is of another package and ``FLORENCE_MM_TRACEBACK`` is 1.
    """
    sentence = str(error) if isinstance(error, DataError) else user_sentence(error)
    if sentence is None:
        if os.environ.get('FLORENCE_MM_TRACEBACK') == '1':
            raise error
        said = str(error).strip().partition('\n')[0]
        sentence = (
            f'{name} cannot be processed ({type(error).__name__}{": " if said else ""}{said}); look at it, or set '
            'FLORENCE_MM_TRACEBACK=1 to see where'
        )
    return Failed(sentence if name in sentence else f'{name}: {sentence}')


def is_web(item: Any) -> bool:
    """Whether an input is a URL with ``http://`` or ``https://``."""
    return isinstance(item, str) and item.lower().startswith(_WEB)


def files_of(item: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """List the files of a folder, with its subfolders, or of a glob, sorted.

    Args:
        item: the folder; or a glob, in which ``**`` is any number of folders.
        suffixes: suffixes of the files to list in folders.
    """
    if Path(item).is_dir():
        return _files_inside(Path(item), suffixes)
    found: list[Path] = []
    # those of Path take no absolute pattern
    for match in sorted(glob.glob(str(item), recursive=True)):  # noqa: PTH207
        found += _files_inside(Path(match), suffixes) if Path(match).is_dir() else [Path(match)]
    return _without_circles(list(dict.fromkeys(found)))


def _without_circles(files: Sequence[Path]) -> list[Path]:
    """Keep the shortest path to each entry of a folder, which a link to a folder above gives any number of them."""
    shortest: dict[tuple[str, str], Path] = {}
    for file in sorted(files, key=lambda file: len(file.parts)):
        shortest.setdefault((os.path.realpath(file.parent), file.name), file)
    kept = set(shortest.values())
    return [file for file in files if file in kept]


def _files_inside(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in suffixes and _is_input(path))


def _is_input(path: Path) -> bool:
    # pipes, devices and folders with such a name are not files; a link to nothing is one whose file is missing
    try:
        return path.is_file() or path.is_symlink() and not path.exists()
    except OSError:  # such as a circle of links: reading it tells
        return True


def from_memory(item: np.ndarray | Image.Image | NoInput) -> np.ndarray:
    """Check an array, or convert a picture of Pillow to one; returns ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: the array has another shape or type, the picture has no pixels or its file is damaged, or the item
            is neither.
    """
    if isinstance(item, NoInput):
        raise DataError(item.sentence)
    if isinstance(item, Image.Image):
        return _from_pillow(item)
    if not isinstance(item, np.ndarray):
        raise DataError(
            f'{shown(item)} is given as an image; give a file, an array (H, W, 3) uint8 RGB or a picture of Pillow'
        )
    if item.ndim != 3 or item.shape[2] != 3 or item.dtype != np.uint8 or 0 in item.shape:
        raise DataError(
            f'an array given as an image has shape {item.shape} and type {item.dtype}; convert it to (H, W, 3) uint8 '
            'RGB from 0 to 255'
        )
    return item


def _from_pillow(picture: Image.Image) -> np.ndarray:
    """Convert to RGB, upright, on white where it is transparent, as files are read."""
    try:
        # what exif_transpose returns has no format
        picture = _of_8_bits(ImageOps.exif_transpose(picture), picture.format)
        if picture.has_transparency_data:
            clear = picture.convert('RGBA')
            picture = Image.alpha_composite(Image.new('RGBA', clear.size, 'white'), clear)
        image = np.asarray(picture.convert('RGB'))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f'a picture of Pillow cannot be read ({error}); open it again') from None
    if 0 in image.shape:
        raise DataError(f'a picture of Pillow has the size {picture.size}; give one with pixels')
    return image


def _of_8_bits(picture: Image.Image, format: str | None) -> Image.Image:
    """Scale grey values of more than 8 bits as those of files are; ``LA`` where a value is transparent."""
    if not picture.mode.startswith(('F', 'I')):
        return picture
    values = np.asarray(picture)
    # Pillow scales the values of a portable graymap so that white is 65535
    deep = picture.mode.startswith('I;16') or format == 'PPM'
    if not deep and (picture.mode == 'F' or values.size and not 0 <= values.min() <= values.max() <= _BYTE):
        raise DataError(
            f'a picture of Pillow has mode {picture.mode}, whose white is unknown; scale it to 0 to 255 and convert it '
            "to 'L' or 'RGB'"
        )
    largest = _WORD if deep else _BYTE
    grey = Image.fromarray(((values.astype(np.int64) * _BYTE + largest // 2) // largest).astype(np.uint8))
    clear = picture.info.get('transparency')
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, _BYTE).astype(np.uint8)))
    return grey


def guard(inputs: Iterable, check: Callable[[list], None]) -> Iterable:
    """Check the files among inputs: those of a list now, others one by one as they come.

    Args:
        inputs: from :func:`~florence_mm.apis.base.list_inputs`.
        check: is given a list of paths, and raises for one that cannot be used.
    """
    if isinstance(inputs, list):
        check([item for item in inputs if isinstance(item, (str, Path))])
        return inputs

    def one_by_one() -> Iterator:
        for item in inputs:
            check([item] if isinstance(item, (str, Path)) else [])
            yield item

    return one_by_one()


def keep_originals(files: Sequence[str | Path], out_dir: str | Path) -> None:
    """Check that no input file is in the output folder, where it could be overwritten.

    Raises:
        UsageError: one is.
    """
    for file in files:
        if lies_in(file, out_dir):
            raise UsageError(
                f'{file} lies in the output folder, where what is written could take its place; '
                'give another output folder'
            )


def free_name(file: str | Path, suffix: str, taken: set[str]) -> str:
    """Name an output after the stem of ``file``, with a number if that is in ``taken``, and add it to ``taken``."""
    stem = short_stem(file, 'picture')
    name, number = f'{stem}{suffix}', 2
    while name in taken:
        name, number = f'{stem}_{number}{suffix}', number + 1
    taken.add(name)
    return name
