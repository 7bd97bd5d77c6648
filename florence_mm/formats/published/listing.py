"""Images of a published data set with their labels, and what its readers share."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io

from florence_mm.errors import DataError, shown
from florence_mm.formats.delimited import read_csv
from florence_mm.utils.reading import read_bytes
from florence_mm.utils.text_files import read_lines

from .mat5 import check_mat5

_LARGEST = 2**29  # bytes of a MATLAB file
_WHOLE = re.compile('[+-]?[0-9]{1,12}')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split with their labels.

    Shape legend: ``N`` images, ``K`` classes.

    Attributes:
        images: N files, or arrays ``(H, W, 3)`` uint8 RGB of a set that is published as arrays.
        labels: ``(N,)`` int64; with several classes an image ``(N, K)`` int8: 1 yes, -1 no, 0 not to be judged.
        names: the K classes as the set names them, in the order of the labels.
        source: file or folder that lists them, for messages.
        listed: number of images that the source lists, if only some of them are of the set; None: these.
        part: number of images here and of the whole split, if some of it are missing; None: the split is whole.
    """

    images: Sequence[Path] | np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    source: Path
    listed: int | None = None
    part: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.images)


def check_split(split: str, known: Iterable[str]) -> None:
    """Check the name of a split.

    Raises:
        ValueError: it is none of those that the set is published with.
    """
    known = tuple(known)
    if split not in known:
        raise ValueError(f'split={split!r} must be one of {", ".join(known)}')


def require_folder(folder: Path, what: str) -> Path:
    """Return a folder that must exist.

    Raises:
        DataError: it does not, or is none.
    """
    if not folder.is_dir():
        raise DataError(f'there is no folder {folder} with {what}; unpack the archive of the set there')
    return folder


def first_place(*places: Path) -> Path:
    """Return the first of several places that exists, or the first if none does: layouts of one set differ."""
    return next((place for place in places if place.exists()), places[0])


def class_folders(folder: Path, what: str) -> list[str]:
    """List the names of the class folders inside a folder, in the order of their characters' codes.

    Raises:
        DataError: there is none.
    """
    entries = require_folder(folder, what).iterdir()
    names = sorted(path.name for path in entries if path.is_dir() and not path.name.startswith('.'))
    if not names:
        raise DataError(f'{folder} has no class folders; expected {what}')
    return names


def files_of(folder: Path) -> list[Path]:
    """List the image files of a folder in the order of their names; others are left out."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != '.')


def list_folders(folder: Path, names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """List the image files of class folders, and the index of each file's class ``(N,)``."""
    files = [files_of(folder / name) for name in names]
    labels = np.repeat(np.arange(len(names)), [len(of_class) for of_class in files])
    return [file for of_class in files for file in of_class], labels.astype(np.int64)


def table_rows(path: Path, cells: int, what: str) -> list[list[str]]:
    """Read the lines of a text file as cells between white space; lines that begin with # are left out.

    Args:
        path: the file.
        cells: least number of cells of a line; the last cell takes the rest of the line.
        what: a line in words, for messages.

    Raises:
        DataError: the file is missing or no text, or a line has fewer cells.
    """
    rows = []
    for number, line in enumerate(read_lines(path, what), 1):
        if line.startswith('#'):
            continue
        row = line.split(None, cells - 1)
        if len(row) < cells:
            raise DataError(f'{path}, line {number}: {shown(line)} has {len(row)} cells; expected {what}')
        rows.append(row)
    return rows


def csv_rows(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """Read the rows of a table in CSV with their line numbers.

    Raises:
        DataError: the file is missing or damaged, or a row lacks one of the columns.
    """
    if not file.is_file():
        raise DataError(f'there is no file {file}; unpack the archive of the set there')
    for line, row in read_csv(file):
        if isinstance(row, DataError):
            raise row
        for column in columns:
            if not row.get(column):
                raise DataError(f'{file}, line {line}: there is no {shown(column)}; restore the file as published')
        yield line, row


def whole_number(cell: str, where: str, low: int, high: int) -> int:
    """Read a cell as a whole number.

    Raises:
        DataError: it is none, or outside ``low`` to ``high``.
    """
    text = cell.strip()
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise DataError(f'{where}: {shown(cell)} must be a whole number from {low} to {high}')
    return int(text)


def index_of(name: str, indices: dict[str, int], where: str) -> int:
    """Return the index of a class.

    Raises:
        DataError: it is none of the set's classes.
    """
    if name not in indices:
        raise DataError(f'{where}: {shown(name)} is none of the {len(indices)} classes; restore the file as published')
    return indices[name]


def read_matlab(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Read arrays of a MATLAB file of version 5 to 7.2, structures as arrays of records.

    Raises:
        DataError: the file is missing, damaged, of another kind, or lacks a key.
    """
    if not path.exists():
        raise DataError(f'there is no file {path}; unpack the archive of the set there')
    data = read_bytes(path, what='MATLAB file', limit=_LARGEST)
    try:
        check_mat5(data)
    except ValueError as error:
        raise DataError(f'{path} {error}; download it again') from None
    try:
        content = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True, variable_names=keys)
    except Exception as error:  # scipy has no class of its own for damaged files
        raise DataError(f'{path} cannot be read as a MATLAB file ({type(error).__name__}); download it again') from None
    for key in keys:
        if key not in content:
            raise DataError(f'{path} has no {key!r}; restore the file as published')
    return {key: np.atleast_1d(content[key]) for key in keys}


def whole_numbers(values: np.ndarray, where: str, low: int, high: int | None = None) -> np.ndarray:
    """Convert an array of a MATLAB file to int64.

    Raises:
        DataError: a value is no whole number, or outside ``low`` to ``high``.
    """
    numeric = values.dtype.kind in 'iuf' and (values.dtype.kind != 'f' or np.isfinite(values).all())
    whole = values.astype(np.int64) if numeric else np.zeros(0, np.int64)
    if (
        not numeric
        or not (whole == values).all()
        or whole.size
        and (whole.min() < low or high is not None and whole.max() > high)
    ):
        limit = f'from {low} on' if high is None else f'from {low} to {high}'
        raise DataError(f'{where} must be whole numbers {limit}; restore the file as published')
    return whole
