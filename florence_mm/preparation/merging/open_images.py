"""Reading Open Images' CSV files into the store (columns as in https://storage.googleapis.com/openimages/web)."""

from collections.abc import Iterator
from pathlib import Path

from florence_mm.errors import DataError
from florence_mm.formats.coco import require_name
from florence_mm.formats.delimited import read_csv
from florence_mm.formats.image import read_size

from .readers import LARGEST_SIDE, BoxIntake, SourceCounts, picture_key
from .sources import SourceSpec
from .store import MergeStore, StoredImage
from .taxonomy import Categories

_CORNERS = ('XMin', 'YMin', 'XMax', 'YMax')


def read_class_descriptions(spec: SourceSpec) -> Categories:
    """Read class codes such as ``'/m/01g317'`` and their names; the header line is optional.

    Raises:
        FileNotFoundError, DataError: the file is missing or its lines are not pairs.
    """
    path = _existing(spec.class_descriptions)
    columns = ('LabelName', 'DisplayName')
    categories: Categories = {}
    for line, row in read_csv(path, (), columns):
        where = f'{path}, line {line}'
        if isinstance(row, DataError):
            raise DataError(f'{row}; expected a class code and a name a line')
        code, name = (require_name(row.get(column), where, column) for column in columns)
        if (code, name) == columns:
            continue
        if code in categories:
            raise DataError(f'{where}: the code {code!r} comes twice')
        categories[code] = name
    if not categories:
        raise DataError(f'{path} has no classes; expected lines such as /m/01g317,Person')
    return categories


def read_open_images(
    spec: SourceSpec, source: int, categories: Categories, shared: bool, store: MergeStore, max_bad_boxes: float
) -> SourceCounts:
    """Read the images that have boxes, the boxes, and the human-verified labels of these images.

    A class is annotated in an image if it has boxes there or was verified to be absent. A class that was verified to be
    present but has no box is annotated only in part.

    Raises:
        FileNotFoundError, DataError: a file is missing, or a line is unusable; the message names it.
    """
    counts = SourceCounts()
    sizes = _Sizes(spec, source, store)
    intake = BoxIntake(store, source, counts, max_bad_boxes)
    for where, row in _rows(spec.ann_file, ('ImageID', 'LabelName', *_CORNERS)):
        id_ = row['ImageID']
        image = store.find_image(source, id_)
        if image is None:
            width, height = sizes.get(id_, where)
            stored = StoredImage(source, id_, f'{spec.prefix}{id_}.jpg', width, height, (), ())
            image = (store.add_image(stored, picture_key(spec.images, id_, shared), where), width, height)
            counts.images += 1
        _require_known(row['LabelName'], categories, where)
        x1, y1, x2, y2 = (_number(row, key, where) for key in _CORNERS)
        corners = (x1 * image[1], y1 * image[2], x2 * image[1], y2 * image[2])
        intake.add(image, row['LabelName'], corners, where, crowd=_is_group(row, where))
    intake.finish()
    if not counts.images:
        raise DataError(f'{spec.ann_file} has no boxes under its header; get it again')
    if spec.image_labels:
        _read_labels(spec, source, categories, store)
    return counts


def _read_labels(spec: SourceSpec, source: int, categories: Categories, store: MergeStore) -> None:
    for where, row in _rows(spec.image_labels, ('ImageID', 'LabelName', 'Confidence')):
        image = store.find_image(source, row['ImageID'])
        # skip codes outside the boxable classes, images without boxes, and labels made by a machine
        if image is None or row['LabelName'] not in categories or row.get('Source') == 'machine':
            continue
        confidence = _number(row, 'Confidence', where)
        if confidence not in (0, 1):
            raise DataError(f'{where}: a verified label has the confidence 0 or 1, but this has {confidence:g}')
        store.add_label(image[0], row['LabelName'], absent=confidence == 0)
    store.apply_labels(source)


class _Sizes:
    """Width and height of images, from a CSV that is stored first, or from the headers of the image files."""

    def __init__(self, spec: SourceSpec, source: int, store: MergeStore) -> None:
        self._root, self._csv, self._source, self._store = spec.image_root, spec.image_sizes, source, store
        if self._csv:
            for where, row in _rows(self._csv, ('ImageID', 'Width', 'Height')):
                size = tuple(_number(row, key, where) for key in ('Width', 'Height'))
                if not all(1 <= value <= LARGEST_SIDE and value == int(value) for value in size):
                    raise DataError(f'{where}: the size {size[0]:g}x{size[1]:g} is not one of an image in pixels')
                width, height = map(int, size)
                if store.find_size(source, row['ImageID']) not in (None, (width, height)):
                    raise DataError(f'{where}: the image {row["ImageID"]!r} had another size before; correct one line')
                store.add_size(source, row['ImageID'], width, height)

    def get(self, id_: str, where: str) -> tuple[int, int]:
        if self._csv:
            size = self._store.find_size(self._source, id_)
            if size is None:
                raise DataError(f'{where}: {self._csv} has no size of the image {id_!r}; add it')
            return size
        return read_size(Path(self._root) / f'{id_}.jpg', f'{where}: ')


def _rows(path: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Yield file and line, and the cells, of each row; the first line must name the columns."""
    file = _existing(path)
    for line, row in read_csv(file):
        if isinstance(row, DataError):
            raise row
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f'{file}, line {line}: no {missing[0]!r}; expected the columns {", ".join(columns)}')
        yield f'{file}, line {line}', row


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no annotation file {path}; get it or correct the path')
    return Path(path)


def _require_known(code: str, categories: Categories, where: str) -> None:
    if code not in categories:
        raise DataError(f'{where}: the class code {code!r} is not in the class descriptions; get the file that fits')


def _is_group(row: dict, where: str) -> bool:
    """Whether a box holds several objects: 1; 0 and, where nobody has looked, -1 are no."""
    value = _number(row, 'IsGroupOf', where) if 'IsGroupOf' in row else 0
    if value not in (0, 1, -1):
        raise DataError(f'{where}: `IsGroupOf` is {row["IsGroupOf"]!r}; expected 1, 0 or -1')
    return value == 1


def _number(row: dict, key: str, where: str) -> float:
    try:
        return float(row[key])
    except ValueError:
        raise DataError(f'{where}: `{key}` is {row[key]!r}; expected a number') from None
