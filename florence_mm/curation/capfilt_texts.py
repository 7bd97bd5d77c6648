"""The texts of a raw shard's pictures, given and drawn, each with the probability that it matches its picture.

A picture's captions are drawn with a seed made of its bytes, so that they are the same wherever it lies, and with
whatever other pictures the models see it.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from florence_mm.formats.image import decode_image
from florence_mm.language.labels import is_blank, normalize_text
from florence_mm.utils.files import replacing
from florence_mm.utils.text_files import is_encodable

from . import reasons
from .columns import make_id, require_pyarrow
from .inputs import RawShard
from .options import CapFiltOptions, StageAOptions
from .pairs import Pair, read_pairs
from .stage_a import promised_size
from .state import read_record, write_record

#: Sources of texts: those that came with the pictures, and those that the captioner wrote.
WEB, SYNTHETIC = 'web', 'synthetic'
SOURCES = (WEB, SYNTHETIC)
#: Pictures after which the state is written, so that a run that is stopped loses no more.
PART = 256


class Captioner(Protocol):
    """A model that writes, as CapFilt uses it.

    Attributes:
        name: what tells its captions from those of another model.
    """

    name: str

    def __call__(self, images: Sequence[np.ndarray], seeds: Sequence[Sequence[int]], top_p: float) -> list[list[str]]:
        """Draw captions of pictures.

        Args:
            images: N pictures ``(H, W, 3)`` uint8 RGB, of any size.
            seeds: for each picture the seeds of its captions.
            top_p: probability of the nucleus.

        Returns:
            for each picture a caption a seed, which depends on the picture and that seed alone.
        """


class Matcher(Protocol):
    """A model that matches, as CapFilt filters with it.

    Attributes:
        name: what tells its probabilities from those of another model.
    """

    name: str

    def __call__(
        self, images: Sequence[np.ndarray], texts: Sequence[str], pairs: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Compute the probabilities ``(P,)`` that pictures and texts match.

        Args:
            images: pictures ``(H, W, 3)`` uint8 RGB, of any size.
            texts: the texts.
            pairs: P pairs (index of a picture, index of a text).
        """


class ShardTexts(NamedTuple):
    """The texts of a raw shard.

    Attributes:
        path: their table, with the columns of :func:`texts_schema`.
        digest: of the table.
        pictures: pictures that were captioned.
        pairs: raw pairs by the reason for which they have no text for the filter, and those that have one (``''``).
    """

    path: Path
    digest: str
    pictures: int
    pairs: dict[str, int]


@dataclass
class _Picture:
    """A picture, its given texts, and their rows."""

    pairs: list[Pair]
    rows: list[dict] = field(default_factory=list)
    image: np.ndarray | None = None


def texts_schema() -> Any:
    """Schema of the table of texts: a row a text, those of a picture one after the other, given ones first.

    ================  =================================================================================
    ``id``            :func:`~florence_mm.curation.columns.make_id` of the shard and the row
    ``key``           name of the pair in its shard
    ``picture``       number of the picture in the shard
    ``image_offset``  place of the picture's bytes in the tar, and their number; -1 if they are not in a tar
    ``path``          the picture's file, of a manifest or folder; null otherwise
    ``text``          the text, '' without one
    ``label_text``    of a given text what the label is made of, if it is not ``text``; null otherwise
    ``query``         the search that found the picture; null if unknown
    ``augmented``     whether a given text is already inside a template
    ``source``        :data:`WEB` or :data:`SYNTHETIC`
    ``match``         probability of a match with the picture; null for what the filter did not see
    ``drop``          reason why the filter did not see it (:mod:`florence_mm.curation.reasons`); null if it did
    ================  =================================================================================
    """
    pa = require_pyarrow()
    return pa.schema(
        [
            ('id', pa.int64()),
            ('key', pa.string()),
            ('picture', pa.int64()),
            ('image_offset', pa.int64()),
            ('image_size', pa.int64()),
            ('path', pa.string()),
            ('text', pa.string()),
            ('label_text', pa.string()),
            ('query', pa.string()),
            ('augmented', pa.bool_()),
            ('source', pa.string()),
            ('match', pa.float64()),
            ('drop', pa.string()),
        ]
    )


def read_texts(texts: ShardTexts) -> Iterator[list[dict[str, Any]]]:
    """Yield the texts of each picture of a shard, rows of :func:`texts_schema`."""
    from pyarrow import parquet

    rows = parquet.read_table(texts.path, use_threads=False).to_pylist()
    for _, group in groupby(rows, lambda row: row['picture']):
        yield list(group)


def is_kept(row: Mapping[str, Any], threshold: float) -> bool:
    """Whether the filter keeps a text, a row of :func:`texts_schema`."""
    return row['match'] is not None and row['match'] >= threshold


def write_texts(
    shard: RawShard,
    options: CapFiltOptions,
    work: Path,
    captioner: Captioner,
    matcher: Matcher,
    done: Callable[[int], None] = lambda pairs: None,
) -> ShardTexts:
    """Write the table of a shard's texts and its record, unless both are there and of the same input and options.

    Args:
        shard: the raw shard.
        options: how captions are drawn; the threshold changes nothing here.
        work: folder of the state.
        captioner, matcher: the models.
        done: is called with the number of raw pairs after each part.
    """
    path = work / 'texts' / f'{shard.number:05}.parquet'
    made_of = {
        'stage': 'capfilt',
        'shard': shard.number,
        'input': shard.digest(),
        'captioner': captioner.name,
        'matcher': matcher.name,
        **{name: getattr(options, name) for name in ('top_p', 'texts', 'seed')},
    }
    record = path.with_suffix('.json')
    found = read_record(record, made_of)
    if found is None:
        record.unlink(missing_ok=True)
        _write_whole(shard, options, path, made_of, captioner, matcher, done)
        found = read_record(record, made_of)
    result = found['result']
    return ShardTexts(path, found['files'][path.name][1], result['pictures'], result['pairs'])


def _write_whole(
    shard: RawShard,
    options: CapFiltOptions,
    path: Path,
    made_of: dict[str, Any],
    captioner: Captioner,
    matcher: Matcher,
    done: Callable[[int], None],
) -> None:
    """Write the table of a shard from its parts, of which those that an earlier run has written stay."""
    pa = require_pyarrow()
    from pyarrow import parquet

    folder = path.with_suffix('')
    tables, pairs = [texts_schema().empty_table()], 0
    for number, pictures in enumerate(_in_parts(_pictures(shard), PART)):
        part = folder / f'{number:05}.parquet'
        if read_record(part.with_suffix('.json'), made_of | {'part': number}) is None:
            part.with_suffix('.json').unlink(missing_ok=True)
            rows = _texts_of(pictures, number * PART, options, captioner, matcher)
            with replacing(part) as temporary:
                parquet.write_table(pa.Table.from_pylist(rows, schema=texts_schema()), temporary)
            write_record(part.with_suffix('.json'), made_of | {'part': number}, [part], {})
        tables.append(parquet.read_table(part, use_threads=False))
        pairs += sum(len(one.pairs) for one in pictures)
        done(pairs)
    table = pa.concat_tables(tables)
    table = table.set_column(0, 'id', pa.array([make_id(shard.number, row) for row in range(len(table))], pa.int64()))
    with replacing(path) as temporary:
        parquet.write_table(table, temporary, compression='zstd')
    given = [drop or '' for source, drop in zip(*map(_values(table), ('source', 'drop')), strict=True) if source == WEB]
    seen = {n for n, source in zip(*map(_values(table), ('picture', 'source')), strict=True) if source == SYNTHETIC}
    result = {'pictures': len(seen), 'pairs': dict(sorted(Counter(given).items()))}
    write_record(path.with_suffix('.json'), made_of, [path], result)
    shutil.rmtree(folder, ignore_errors=True)


def _values(table: Any) -> Callable[[str], list]:
    return lambda name: table.column(name).to_pylist()


def _pictures(shard: RawShard) -> Iterator[_Picture]:
    """The pictures of a shard; the pairs of a file that follow each other, as those of several texts, are of one."""
    numbered = enumerate(read_pairs(shard))
    for _, group in groupby(numbered, lambda entry: (entry[1].path, None if entry[1].path else entry[0])):
        yield _Picture([pair for _, pair in group])


def _in_parts(pictures: Iterator[_Picture], size: int) -> Iterator[list[_Picture]]:
    while part := list(islice(pictures, size)):
        yield part


def _texts_of(
    pictures: Sequence[_Picture], first: int, options: CapFiltOptions, captioner: Captioner, matcher: Matcher
) -> list[dict]:
    """Rows of the texts of a part of the pictures, the first of which has this number in its shard."""
    for start in range(0, len(pictures), options.batch_size):
        batch = pictures[start : start + options.batch_size]
        for number, picture in enumerate(batch, first + start):
            _take_given(picture, number)
        seen = [picture for picture in batch if picture.image is not None]
        if seen:
            _caption(seen, options, captioner)
            _match(seen, matcher)
        for picture in batch:
            picture.image = None
    return [row for picture in pictures for row in picture.rows]


def _take_given(picture: _Picture, number: int) -> None:
    """Decode a picture, and make the rows of its given texts."""
    first = picture.pairs[0]
    unseen = first.drop or reasons.NO_IMAGE
    if first.image is not None:
        picture.image, unseen = decode_or_reason(first.image)
    for pair in picture.pairs:
        drop = pair.drop or unseen
        if drop is None and is_blank(normalize_text(pair.text)):
            drop = reasons.BLANK_TEXT
        row = _row(pair, number, pair.text, WEB, drop)
        picture.rows.append(row | {'label_text': pair.label_text, 'augmented': pair.augmented})


def decode_or_reason(data: bytes) -> tuple[np.ndarray | None, str | None]:
    """Decode a picture's file to ``(H, W, 3)`` uint8 RGB; None and the reason if it cannot be."""
    reason = promised_size(data, StageAOptions.max_pixels)[1]
    if reason is not None:
        return None, reason
    try:
        return decode_image(data), None
    except ValueError:
        return None, reasons.UNDECODABLE


def _row(pair: Pair, number: int, text: str, source: str, drop: str | None) -> dict[str, Any]:
    return {
        'id': 0,
        'key': pair.key,
        'picture': number,
        'image_offset': pair.offset,
        'image_size': pair.size,
        'path': pair.path,
        'text': text,
        'label_text': None,
        'query': pair.query,
        'augmented': False,
        'source': source,
        'match': None,
        'drop': drop,
    }


def seed_of(data: bytes, seed: int, number: int) -> int:
    """Seed of a caption of a picture, below 2**63.

    Args:
        data: the picture's file.
        seed: of the run.
        number: of the caption among those of the picture.
    """
    key = seed.to_bytes(8, 'big') + number.to_bytes(8, 'big')
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), 'big') >> 1


def _caption(pictures: Sequence[_Picture], options: CapFiltOptions, captioner: Captioner) -> None:
    """Draw captions of pictures, and make their rows."""
    seeds = [[seed_of(one.pairs[0].image, options.seed, n) for n in range(options.texts)] for one in pictures]
    drawn = captioner([one.image for one in pictures], seeds, options.top_p)
    found, wanted = ([len(several) for several in each] for each in (drawn, seeds))
    if found != wanted:
        raise ValueError(
            f'the captioner {captioner.name} returned {found} captions of {len(pictures)} pictures with {wanted} '
            'seeds; return one for each seed'
        )
    for picture, texts in zip(pictures, drawn, strict=True):
        pair, number = picture.pairs[0], picture.rows[0]['picture']
        for text in texts:
            drop = reasons.BLANK_TEXT if is_blank(normalize_text(text)) else None
            if not is_encodable(text):
                text, drop = '', reasons.INVALID_TEXT
            picture.rows.append(_row(pair, number, text, SYNTHETIC, drop))


def _match(pictures: Sequence[_Picture], matcher: Matcher) -> None:
    """Let the filter see the texts of pictures, and put its probabilities into their rows."""
    pairs = [(place, row) for place, one in enumerate(pictures) for row in one.rows if row['drop'] is None]
    texts = list(dict.fromkeys(row['text'] for _, row in pairs))
    number = {text: n for n, text in enumerate(texts)}
    images = [picture.image for picture in pictures]
    found = matcher(images, texts, [(place, number[row['text']]) for place, row in pairs]) if pairs else np.zeros(0)
    if found.shape != (len(pairs),) or bool(((found < 0) | (found > 1)).any()):
        raise ValueError(
            f'the filter {matcher.name} returned {found.tolist()[:3]} ... of shape {found.shape} for {len(pairs)} '
            'pairs; return a probability for each pair'
        )
    for (_, row), probability in zip(pairs, found.tolist(), strict=True):
        if np.isfinite(probability):
            row['match'] = probability
        else:
            row['drop'] = reasons.SCORE_NOT_FINITE
