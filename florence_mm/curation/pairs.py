"""Raw pairs of a shard, one at a time: the bytes of a picture, its text, or the reason why there is none."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, shown_path
from florence_mm.formats.image import MAX_BYTES
from florence_mm.formats.rows import batch_rows
from florence_mm.formats.shard_samples import IMAGES, RawSample, group_samples, read_range
from florence_mm.formats.tar import TRUNCATED, Damage, Member, read_members
from florence_mm.language.labels import is_blank
from florence_mm.utils.json_files import parse_json
from florence_mm.utils.reading import read_bytes
from florence_mm.utils.text_files import is_encodable

from . import reasons
from .columns import require_pyarrow
from .inputs import RawShard, parquet_beside, read_list, text_names
from .options import InputOptions
from .pictures import parquet_rows, picture_of

#: Members that hold nothing but the text.
_PLAIN = ('txt', 'caption')
_FLAGS = {'true': True, '1': True, 'false': False, '0': False}


@dataclass
class Pair:
    """A raw pair.

    Attributes:
        key: name in its shard.
        image: bytes of the picture; None without one.
        offset, size: place of the picture in its tar; -1 if it is in none.
        path: file of the picture, if it has one of its own.
        text: the text, '' without one.
        label_text: what the label is made of, if it is not the text.
        query: the search that found the picture.
        augmented: whether the text is already inside a template.
        drop: reason why this is no whole pair, or None.
        pairs: how many pairs it stands for: 1, or all that are not there for the same reason.
    """

    key: str
    image: bytes | None = None
    offset: int = -1
    size: int = -1
    path: str | None = None
    text: str = ''
    label_text: str | None = None
    query: str | None = None
    augmented: bool = False
    drop: str | None = None
    pairs: int = 1

    def take_fields(self, fields: Mapping[str, Any], source: InputOptions) -> None:
        """Take text, label, query and flag from a JSON object or a row; what cannot be used becomes the reason."""
        text, label, query, augmented = (
            next((fields[name] for name in source.names_of(field) if fields.get(name) is not None), None)
            for field in ('text', 'label', 'query', 'augmented')
        )
        self.query = source.query if query is None else str(query)
        flag = _FLAGS.get(str(augmented).lower()) if augmented is not None else False
        if self.text == '' and text is not None:
            self.text = text if isinstance(text, str) else ''
        texts = [one for one in (text, label) if one is not None]
        if (
            not all(isinstance(one, str) and is_encodable(one) for one in texts)
            or flag is None
            or (self.query is not None and not is_encodable(self.query))
        ):
            self._refuse(reasons.INVALID_TEXT)
            return
        if label is not None and not is_blank(label):
            self.label_text = label
        self.augmented = flag
        if not self.text and text is None:
            self._refuse(reasons.NO_TEXT)
        elif is_blank(self.text):
            self._refuse(reasons.BLANK_TEXT)
        elif flag and self.label_text is None:  # its label would be that of the template
            self._refuse(reasons.INVALID_TEXT)

    def _refuse(self, reason: str) -> None:
        if reason == reasons.INVALID_TEXT:  # what no column of texts can hold is not kept
            self.text, self.label_text, self.query = '', None, None
        self.drop = self.drop or reason


def read_pairs(shard: RawShard) -> Iterator[Pair]:
    """Yield all raw pairs of a shard, those that are no whole pairs too, in the order of the shard.

    Of a damaged tar, whose reader goes on behind the damage, a pair that lost a member to it has the damage as reason;
    pairs that a damage took whole, and those that the downloader counted and that are not there, are one pair without a
    key for each reason, with their number.

    Args:
        shard: the shard.

    Raises:
        FileNotFoundError: the tar, list or parquet file is gone.
        DataError: it cannot be read as a whole, such as a compressed tar.
    """
    read = {'tars': _tar_pairs, 'parquet': _parquet_pairs, 'manifest': _listed_pairs, 'folder': _listed_pairs}
    return read[shard.options.kind](shard)


def _tar_pairs(shard: RawShard) -> Iterator[Pair]:
    events = list(read_members(shard.path))
    samples = [
        sample for sample in group_samples(events) if any(one in sample.members for one in (*IMAGES, *_PLAIN, 'json'))
    ]
    hurt, lost = _losses(events, samples)
    table = _rows_beside(shard)
    descriptor = os.open(shard.path, os.O_RDONLY)
    try:
        for number, sample in enumerate(samples):
            yield _tar_pair(descriptor, sample, shard.options, table, hurt.get(number))
    finally:
        os.close(descriptor)
    missing = 0 if shard.expected is None else shard.expected - len(samples) - len(lost)
    absent = Counter(lost)
    absent[lost[-1] if lost else reasons.MISSING] += max(missing, 0)
    for reason, pairs in absent.items():
        if pairs:
            yield Pair('', drop=reason, pairs=pairs)


def _tar_pair(
    descriptor: int, sample: RawSample, source: InputOptions, table: Mapping[str, dict], hurt: str | None
) -> Pair:
    pair = Pair(os.fsencode(sample.key).decode('utf-8', 'replace'))
    image = sample.first(IMAGES)
    if image is None:
        pair.drop = hurt or reasons.NO_IMAGE
    elif image[1].size > MAX_BYTES:
        pair.drop = reasons.BOMB
    else:
        pair.offset, pair.size = image[1].offset, image[1].size
        pair.image = read_range(descriptor, pair.offset, pair.size)
    texts = {
        extension: read_range(descriptor, member.offset, member.size)
        for extension, member in sample.members.items()
        if extension in (*_PLAIN, 'json')
    }
    if not texts and not table.get(pair.key):
        pair.drop = pair.drop or hurt
    _take_texts(pair, texts, source, table.get(pair.key, {}))
    return pair


def _take_texts(pair: Pair, texts: Mapping[str, bytes], source: InputOptions, fields: Mapping[str, Any]) -> None:
    """Take the text from members or files by extension, and what else their JSON or ``fields`` say."""
    try:
        plain = next((texts[one] for one in _PLAIN if one in texts), None)
        if plain is not None:
            pair.text = plain.decode('utf-8-sig').strip()
            fields = {source.names_of('text')[0]: pair.text, **fields}
        if 'json' in texts:
            content = parse_json(texts['json'], 'the json')
            if not isinstance(content, dict):
                raise DataError('the json is no object')
            fields = {**fields, **content}
    except ValueError:  # UTF-8 or JSON that is none
        pair.text = ''
        pair.drop = pair.drop or reasons.INVALID_TEXT
        return
    pair.take_fields(fields, source)


def _losses(events: Sequence[Member | Damage], samples: Sequence[RawSample]) -> tuple[dict[int, str], list[str]]:
    """Find what the damages of a tar took: reasons of incomplete samples by number, and of whole samples."""
    owner = {member: number for number, sample in enumerate(samples) for member in sample.members.values()}
    hurt: dict[int, str] = {}
    lost = []
    for place, event in enumerate(events):
        if not isinstance(event, Damage):
            continue
        reason = reasons.TRUNCATED_TAR if event.reason == TRUNCATED else reasons.DAMAGED_TAR
        beside = [owner.get(events[at]) for at in (place - 1, place + 1) if 0 <= at < len(events)]
        incomplete = [at for at in beside if at is not None and at not in hurt and _is_incomplete(samples[at])]
        if incomplete:
            hurt[incomplete[0]] = reason
        else:
            lost.append(reason)
    return hurt, lost


def _is_incomplete(sample: RawSample) -> bool:
    return sample.first(IMAGES) is None or sample.first((*_PLAIN, 'json')) is None


def _rows_beside(shard: RawShard) -> dict[str, dict]:
    """Rows of img2dataset's table beside a tar by key, with the fields that are wanted of it."""
    path = parquet_beside(shard.path)
    if not path.is_file():
        return {}
    from pyarrow import parquet

    wanted = text_names(shard.options)
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in wanted if name in file.schema_arrow.names]
            if not names or 'key' not in file.schema_arrow.names:
                return {}
            rows = [row for batch in file.iter_batches(columns=['key', *names]) for row in batch_rows(batch)]
    except (require_pyarrow().ArrowException, OSError) as error:
        raise DataError(
            f'{shown_path(path)} beside the tar is not a whole parquet file ({str(error).splitlines()[0]}); copy it '
            'again, or remove it'
        ) from None
    return {str(row.pop('key')): row for row in rows if isinstance(row, dict)}


def _listed_pairs(shard: RawShard) -> Iterator[Pair]:
    for row in read_list(shard.path):
        image, drop = None, row['drop']
        if row['path'] is not None:
            try:
                image = read_bytes(row['path'], limit=MAX_BYTES)
            except DataError:
                drop = reasons.NO_IMAGE
        try:
            texts = {Path(path).suffix[1:].lower(): read_bytes(path, what='text') for path in row['texts']}
        except DataError:
            texts = {}
        for fields in _each_text(json.loads(row['fields']), shard.options):
            pair = Pair(row['key'], image, path=row['path'], drop=drop)
            if pair.drop != reasons.INVALID_TEXT:
                _take_texts(pair, texts, shard.options, fields)
            yield pair


def _each_text(fields: Mapping[str, Any], source: InputOptions) -> list[Mapping[str, Any]]:
    """Fields of the pairs of a manifest's row: one for each of its ``texts``, or one alone."""
    several = next((fields[name] for name in source.names_of('texts') if name in fields), None)
    if not isinstance(several, list) or any(name in fields for name in source.names_of('text')):
        return [fields]
    return [{**fields, source.names_of('text')[0]: text} for text in several] or [fields]


def _parquet_pairs(shard: RawShard) -> Iterator[Pair]:
    for number, row in enumerate(parquet_rows(shard, text_names(shard.options))):
        pair = Pair(str(number))
        if isinstance(row, str):
            pair.drop = reasons.INVALID_TEXT
        else:
            data = picture_of(row, shard.options)
            pair.image = data
            pair.drop = None if data else reasons.NO_IMAGE
            pair.take_fields(row, shard.options)
        yield pair
