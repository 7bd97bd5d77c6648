"""Store of the images and boxes of all sources in an SQLite file, so that memory does not grow with them."""

import json
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from florence_mm.errors import DataError

_SCHEMA = """
CREATE TABLE image (
    row INTEGER PRIMARY KEY, source INTEGER, id, key TEXT, file_name TEXT, width INTEGER, height INTEGER,
    negative TEXT, partial TEXT, picture INTEGER
);
CREATE UNIQUE INDEX image_id ON image (source, id);
CREATE TABLE box (image INTEGER, category, x1 REAL, y1 REAL, x2 REAL, y2 REAL, area REAL, crowd INTEGER, score REAL);
CREATE TABLE size (source INTEGER, id TEXT, width INTEGER, height INTEGER, PRIMARY KEY (source, id)) WITHOUT ROWID;
CREATE TABLE label (image INTEGER, category TEXT, absent INTEGER, PRIMARY KEY (image, category)) WITHOUT ROWID;
CREATE TABLE excluded (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class StoredImage(NamedTuple):
    """An image of one source.

    ``negative`` are the categories verified to be absent (``neg_category_ids``), ``partial`` those of which not every
    object has a box (``not_exhaustive_category_ids``); both are None if the source annotates all its categories.
    """

    source: int
    id: int | str
    file_name: str
    width: int
    height: int
    negative: tuple[int | str, ...] | None
    partial: tuple[int | str, ...] | None


class StoredBox(NamedTuple):
    """A box of one source: corners in pixels, area in square pixels, ``score`` if a detector made it."""

    source: int
    category: int | str
    x1: float
    y1: float
    x2: float
    y2: float
    area: float
    crowd: int
    score: float | None


class MergeStore:
    """Temporary SQLite file with images, boxes and labels; removed by :meth:`close`.

    Args:
        path (Path): The file; it takes about 100 bytes per box, and SQLite's sorting as much again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        # no recovery needed: an interrupted merge starts again
        for pragma in ('journal_mode=OFF', 'synchronous=OFF', 'cache_size=-8192', 'temp_store=FILE'):
            self._db.execute(f'PRAGMA {pragma}')
        self._db.executescript(_SCHEMA)
        self._db.execute('BEGIN')

    def add_image(self, image: StoredImage, key: str, where: str) -> int:
        """Store an image and return its row; images with equal ``key`` are the same picture.

        Raises:
            DataError: the source has another image with this id.
        """
        lists = [None if ids is None else json.dumps(ids) for ids in (image.negative, image.partial)]
        row = (image.source, image.id, key, image.file_name, image.width, image.height, *lists)
        try:
            cursor = self._db.execute(
                'INSERT INTO image (source, id, key, file_name, width, height, negative, partial)'
                ' VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
                row,
            )
        except sqlite3.IntegrityError:
            raise DataError(f'{where}: another image has the id {image.id!r}; ids must differ') from None
        return cursor.lastrowid

    def find_image(self, source: int, id_: int | str) -> tuple[int, int, int] | None:
        """Return row, width and height of an image, or None."""
        query = 'SELECT row, width, height FROM image WHERE source = ? AND id = ?'
        return self._db.execute(query, (source, id_)).fetchone()

    def add_size(self, source: int, id_: str, width: int, height: int) -> None:
        """Store the size of an image that may come later."""
        self._db.execute('INSERT OR REPLACE INTO size VALUES (?, ?, ?, ?)', (source, id_, width, height))

    def find_size(self, source: int, id_: str) -> tuple[int, int] | None:
        """Return width and height stored by :meth:`add_size`, or None."""
        query = 'SELECT width, height FROM size WHERE source = ? AND id = ?'
        return self._db.execute(query, (source, id_)).fetchone()

    def add_label(self, row: int, category: int | str, absent: bool) -> None:
        """Store that a category was verified to be present in, or absent from, an image."""
        self._db.execute('INSERT OR REPLACE INTO label VALUES (?, ?, ?)', (row, category, int(absent)))

    def apply_labels(self, source: int) -> None:
        """Set ``negative`` to the absent categories, and ``partial`` to the present ones without a box."""
        self._db.execute('CREATE INDEX IF NOT EXISTS box_image ON box (image, category)')
        labels = self._db.execute(
            'SELECT label.image, label.category, absent, EXISTS (SELECT 1 FROM box WHERE box.image = label.image'
            ' AND box.category = label.category) FROM label JOIN image ON image.row = label.image'
            ' WHERE source = ? ORDER BY label.image, label.category',
            (source,),
        )
        for row, group in groupby(labels, key=lambda label: label[0]):
            # a box overrides a label that says "absent"
            unboxed = [(category, absent) for _, category, absent, boxed in group if not boxed]
            negative = json.dumps([category for category, absent in unboxed if absent])
            partial = json.dumps([category for category, absent in unboxed if not absent])
            self._db.execute('UPDATE image SET negative = ?, partial = ? WHERE row = ?', (negative, partial, row))

    def add_box(self, row: int, box: StoredBox) -> None:
        """Store a box of the image with this row."""
        self._db.execute('INSERT INTO box VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)', (row, *box[1:]))

    def exclude(self, key: str) -> None:
        """Exclude the picture with this key."""
        self._db.execute('INSERT OR IGNORE INTO excluded VALUES (?)', (key,))

    def number_pictures(self) -> tuple[int, int]:
        """Number the pictures by first source, then file name; return the numbers of pictures and of excluded ones.

        Raises:
            DataError: a source has a picture twice, or two sources disagree about its size.
        """
        twice = self._db.execute(
            'SELECT min(file_name), max(file_name), source FROM image GROUP BY source, key HAVING count(*) > 1'
            ' ORDER BY source, key LIMIT 1'
        ).fetchone()
        if twice:
            raise DataError(
                f'two images of source {twice[2]} are one picture by their file names, {twice[0]} and {twice[1]}; give '
                'the source an `images` of its own'
            )
        unequal = self._db.execute(
            'SELECT file_name, key FROM image GROUP BY key'
            ' HAVING min(width) < max(width) OR min(height) < max(height) ORDER BY key LIMIT 1'
        ).fetchone()
        if unequal:
            query = 'SELECT DISTINCT width, height FROM image WHERE key = ? ORDER BY source'
            sizes = [f'{width}x{height}' for width, height in self._db.execute(query, unequal[1:])]
            raise DataError(
                f'{unequal[0]} is one picture by its file name in several sources, but {" and ".join(sizes)} pixels '
                'large; give the sources different `images`'
            )
        (excluded,) = self._db.execute(
            'SELECT count(DISTINCT key) FROM image WHERE key IN (SELECT key FROM excluded)'
        ).fetchone()
        # with min(), SQLite takes file_name from the row with the smallest source
        self._db.execute(
            'CREATE TABLE picture AS SELECT key FROM (SELECT key, min(source) AS first, file_name FROM image'
            ' WHERE key NOT IN (SELECT key FROM excluded) GROUP BY key) ORDER BY first, file_name'
        )
        self._db.execute('CREATE INDEX picture_key ON picture (key)')
        self._db.execute('UPDATE image SET picture = (SELECT picture.rowid FROM picture WHERE picture.key = image.key)')
        (count,) = self._db.execute('SELECT count(*) FROM picture').fetchone()
        return count, excluded

    def pictures(self) -> Iterator[tuple[int, list[StoredImage], list[StoredBox]]]:
        """Yield number (from 1), images in the order of sources, and boxes of each picture."""
        images = self._db.execute(
            'SELECT picture, source, id, file_name, width, height, negative, partial FROM image'
            ' WHERE picture IS NOT NULL ORDER BY picture, source'
        )
        boxes = self._db.execute(
            'SELECT picture, source, category, x1, y1, x2, y2, area, crowd, score FROM box JOIN image'
            ' ON image.row = box.image WHERE picture IS NOT NULL ORDER BY picture, source'
        )
        grouped = groupby(boxes, key=lambda row: row[0])
        number_boxes, picture_boxes = next(grouped, (None, ()))
        for number, rows in groupby(images, key=lambda row: row[0]):
            boxes_here = []
            if number == number_boxes:
                boxes_here = [StoredBox(*row[1:]) for row in picture_boxes]
                number_boxes, picture_boxes = next(grouped, (None, ()))
            yield number, [_image(row) for row in rows], boxes_here

    def close(self) -> None:
        """Close and remove the file."""
        self._db.close()
        self.path.unlink(missing_ok=True)


def _image(row: tuple) -> StoredImage:
    negative, partial = (None if text is None else tuple(json.loads(text)) for text in row[6:8])
    return StoredImage(*row[1:6], negative, partial)
