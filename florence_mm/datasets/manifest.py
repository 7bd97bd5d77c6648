"""Data set of images with texts or classes, listed in a manifest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

from florence_mm.errors import DataError, shown
from florence_mm.formats.captions import checked_caption, checked_captions, checked_path
from florence_mm.formats.rows import read_rows
from florence_mm.language.labels import normalize_text
from florence_mm.registry import DATASETS

from .arguments import require, require_flags
from .base import ImageTextDataset

COLUMNS = ('image', 'text', 'texts', 'class', 'label', 'augmented')
_FLAGS = {'true': True, '1': True, 'false': False, '0': False}


@DATASETS.register_module()
class ImageTextManifest(ImageTextDataset):
    """Image-text-label triplets from a jsonl, csv, tsv or parquet file (Florence, section 2.2).

    Columns; each row needs ``image`` and at least one of ``text``, ``texts`` and ``class``:

    =============  ==================================================================================
    ``image``      path, relative to ``data_prefix`` (or ``data_root``, or else the manifest's folder)
    ``text``       a caption
    ``texts``      several captions; a JSON list in csv and tsv
    ``class``      a class name, or an index into ``classes`` (a number in jsonl and parquet)
    ``label``      with ``text``: the text that the label is made from, if it is not ``text`` itself
    ``augmented``  true if ``text`` is already inside a template
    =============  ==================================================================================

    Other columns are kept and reach the packed sample as ``extra``.

    Args:
        ann_file (str): The manifest; the extension tells the format.
        columns (dict[str, str] | None): Names of these columns in the file, if they differ, such as
            ``dict(image='filepath', text='title')``.
        merge_images (bool): Merge all rows with the same image into one sample, for retrieval with several captions per
            image from a file with one caption per row. The rows must agree on class, ``label`` and ``augmented``; other
            columns are those of the first row. Without it, an image that occurs twice is an error in test
            mode, because each copy would be a wrong answer to the captions of the other.
        drop_augmented (bool): Leave out rows marked ``augmented``, as in the paper's second stage, and log their
            number.
        data_root, data_prefix, classes, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see
            :class:`ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no manifest.
        DataError: the file, or a row that may not be skipped, is unusable.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | dict = '',
        columns: Mapping[str, str] | None = None,
        merge_images: bool = False,
        drop_augmented: bool = False,
        classes: str | Sequence[str] | None = None,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        require_flags(merge_images=merge_images, drop_augmented=drop_augmented)
        require(
            'columns', columns, columns is None or isinstance(columns, Mapping), "a dict such as dict(text='title')"
        )
        self.columns = dict(columns or {})
        unknown = set(self.columns) - set(COLUMNS)
        if unknown:
            raise ValueError(f'columns names {sorted(unknown)}; the columns are {", ".join(COLUMNS)}')
        for column, name in self.columns.items():
            right = isinstance(name, str) and list(self.columns.values()).count(name) == 1
            require(f'columns[{column!r}]', name, right, 'the name of a column, another for each')
        # a column that another one's name was given to is not read under its own
        taken = set(self.columns.values())
        self._keys = [self.columns.get(column, None if column in taken else column) for column in COLUMNS]
        self.merge_images = merge_images
        self.drop_augmented = drop_augmented
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            classes=classes,
            skip_bad=skip_bad,
            pipeline=pipeline,
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the parsed rows of the manifest, merged by image with ``merge_images``."""
        rows = self._parsed_rows()
        if self.drop_augmented:
            rows = self._original(rows)
        if self.merge_images:
            rows = self._merged(rows)
        elif self.test_mode:
            rows = self._without_repeats(rows)
        return rows

    def _parsed_rows(self) -> Iterator[dict | DataError]:
        unseen = set(self.columns.values())
        for line, raw in read_rows(self.ann_file, lists=[self._keys[2]]):
            if isinstance(raw, DataError):
                yield raw
                continue
            if unseen:
                unseen.difference_update(raw)
            try:
                yield self._parse(raw, line)
            except ValueError as error:
                yield DataError(f'{self.ann_file}, line {line}: {error}')
        if unseen:
            raise DataError(
                f'{self.ann_file}: no row has {", ".join(map(repr, sorted(unseen)))}, which `columns` names; correct '
                'the name or leave it out'
            )

    def _parse(self, raw: dict, line: int) -> dict:
        image, text, texts, class_, label, augmented = [raw.pop(key, None) for key in self._keys]
        if image is None:
            raise ValueError(f'no {self._keys[0]!r}; a row needs the path of its image')
        if isinstance(image, (bytes, Mapping)):
            raise ValueError('the image is stored in the manifest itself; write it to a file and give the path')
        row: dict[str, Any] = {'image': checked_path(image), 'line': line}
        if text is not None and texts is not None:
            raise ValueError('both `text` and `texts`; give one of them')
        if text is not None:
            row['texts'] = [checked_caption(text)]
        elif texts is not None:
            row['texts'] = checked_captions(texts)
        if class_ is not None:
            row['class_index'] = self.class_names.index(class_)
        elif 'texts' not in row:
            names = ', '.join(repr(key) for key in self._keys[1:4] if key)
            raise ValueError(f'no description; a row needs one of {names}')
        if label is not None:
            if text is None:
                raise ValueError('`label` without `text`; it names the text that the label of `text` is made of')
            row['label'] = checked_caption(label, 'label')
        if augmented is not None:
            row['augmented'] = self._flag(augmented)
            if row['augmented'] and 'label' not in row:
                raise ValueError('`augmented` without `label`; the label is made of the text before the template')
        if raw:
            row['extra'] = raw
        return row

    @staticmethod
    def _flag(value: Any) -> bool:
        flag = value if isinstance(value, bool) else _FLAGS.get(str(value).lower())
        if flag is None:
            raise ValueError(f'`augmented` must be true or false, but is {shown(value)}')
        return flag

    def _original(self, rows: Iterator[dict | DataError]) -> Iterator[dict | DataError]:
        dropped = 0
        for row in rows:
            if not isinstance(row, DataError) and row.get('augmented', False):
                dropped += 1
            else:
                yield row
        print_log(f'{self.ann_file}: left {dropped} augmented rows out (drop_augmented)', 'current')

    def _merged(self, rows: Iterator[dict | DataError]) -> Iterator[dict | DataError]:
        merged: dict[str, dict] = {}
        for row in rows:
            if isinstance(row, DataError):
                yield row
                continue
            first = merged.setdefault(self.same_image(row['image']), row)
            if first is row:
                continue
            if first.get('class_index', row.get('class_index')) != row.get('class_index', first.get('class_index')):
                yield DataError(
                    f'{self.ann_file}, line {row["line"]}: another class for the image of line {first["line"]}'
                )
                continue
            if _origin(first) != _origin(row):
                yield DataError(
                    f'{self.ann_file}, line {row["line"]}: another `label` or `augmented` than for the same image in '
                    f'line {first["line"]}; merged rows share them'
                )
                continue
            first.update({key: row[key] for key in ('class_index', 'extra') if key in row and key not in first})
            known = set(map(normalize_text, first.get('texts', ())))
            new = [text for text in row.get('texts', ()) if normalize_text(text) not in known]
            if new:
                first['texts'] = first.get('texts', []) + new
        yield from merged.values()

    def _without_repeats(self, rows: Iterator[dict | DataError]) -> Iterator[dict | DataError]:
        lines: dict[str, int] = {}
        for row in rows:
            if not isinstance(row, DataError):
                first = lines.setdefault(self.same_image(row['image']), row['line'])
                if first != row['line']:
                    raise DataError(
                        f'{self.ann_file}, line {row["line"]}: the image {row["image"]!r} is that of line {first}; set '
                        'merge_images=True to make one sample of its rows'
                    )
            yield row


def _origin(row: Mapping) -> tuple[str, bool]:
    """What the label of a row's texts is made from if not from each text itself, and whether they are augmented."""
    return normalize_text(row.get('label', '')), row.get('augmented', False)
