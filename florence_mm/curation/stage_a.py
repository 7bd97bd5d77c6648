"""Stage A: one raw shard to its sidecar, a table of what each pair is and whether it is dropped.

A shard is looked at by itself, so that any number of processes share the work and give the same tables. What is wrong
with a pair is a reason in its row; errors are of whole files only.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from florence_mm.formats.image import WHITE, decode_image, header_size
from florence_mm.language.labels import is_blank, normalize_text, text_label
from florence_mm.utils.files import replacing

from . import reasons
from .columns import make_id, require_pyarrow, sidecar_schema
from .hashing import LEAST_SIDE, perceptual_hash, sampling_hash
from .inputs import RawShard
from .options import StageAOptions, as_json
from .pairs import Pair, read_pairs
from .state import read_record, write_record

KEPT = 'kept'
REDUCTIONS = (4, 2)
#: Text of the pictures of evaluation sets, for models that embed pairs.
_ANY_TEXT = 'a picture'


class Embed(Protocol):
    """A model of pictures and texts, as stage A uses it.

    Attributes:
        name: what tells its features from those of another model.
        least: pixels that the shorter side of a picture should have.
        width: of the features.
    """

    name: str
    least: int
    width: int

    def prepare(self, image: np.ndarray) -> Any:
        """Make the model's input of a picture ``(H, W, 3)`` uint8 RGB."""

    def __call__(self, images: Sequence[Any], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed prepared pictures and texts: two arrays ``(N, D)`` float32, L2-normalised."""


class Counts(NamedTuple):
    """What became of the pairs of a shard.

    Attributes:
        shard: number of the shard.
        pairs: all pairs.
        by_reason: dropped pairs by reason, and those :data:`KEPT`.
        digest: of the sidecar.
    """

    shard: int
    pairs: int
    by_reason: dict[str, int]
    digest: str


def sidecar_path(work: Path, number: int) -> Path:
    """Path of a shard's sidecar in a work folder."""
    return work / 'stage_a' / f'{number:05}.parquet'


def process_shard(
    shard: RawShard, options: StageAOptions, work: Path, embed: Embed | None = None, pictures_only: bool = False
) -> Counts:
    """Write the sidecar of a shard and its record, unless both are there and of the same input and options.

    Args:
        shard: the shard.
        options: see :class:`~florence_mm.curation.options.StageAOptions`.
        work: the work folder.
        embed: the model that scores the pairs; needed for embeddings.
        pictures_only: of an evaluation set: every picture is kept that can be decoded, and texts do not matter.
    """
    path = sidecar_path(work, shard.number)
    made_of = {
        'stage': 'a',
        'options': as_json(options),
        'model': embed.name if embed is not None else None,
        'shard': shard.number,
        'input': shard.digest(),
        'pictures_only': pictures_only,
    }
    record = path.with_suffix('.json')
    found = read_record(record, made_of)
    if found is None:
        record.unlink(missing_ok=True)
        table = measure_shard(shard, options, embed, pictures_only)
        from pyarrow import parquet

        with replacing(path) as temporary:
            parquet.write_table(table, temporary, compression='zstd')
        drops: Counter[str] = Counter()
        for name, pairs in zip(table['drop'].to_pylist(), table['pairs'].to_pylist(), strict=True):
            drops[name or KEPT] += pairs
        result = {'pairs': drops.total(), 'by_reason': dict(sorted(drops.items()))}
        found = write_record(record, made_of, [path], result)
    return Counts(shard.number, **found['result'], digest=found['files'][path.name][1])


def measure_shard(
    shard: RawShard, options: StageAOptions, embed: Embed | None = None, pictures_only: bool = False
) -> Any:
    """Make the table of a shard, with the columns of :func:`~florence_mm.curation.columns.sidecar_schema`.

    Args:
        shard, options, embed, pictures_only: see :func:`process_shard`.
    """
    if pictures_only:
        options = replace(options, min_side=1, max_aspect=math.inf)
    rows = []
    waiting: list[tuple[dict, Any]] = []
    for position, pair in enumerate(read_pairs(shard)):
        if pictures_only and pair.image is not None:
            pair = Pair(pair.key, pair.image, pair.offset, pair.size, pair.path, text=_ANY_TEXT)
        row, image = _measure(pair, shard.number, position, options, embed)
        rows.append(row)
        if image is not None:
            waiting.append((row, image))
            if len(waiting) == options.batch_size:
                _score(waiting, embed)
    if waiting:
        _score(waiting, embed)
    return _table(rows, embed.width if embed is not None and options.embeddings else None)


def _measure(pair: Pair, shard: int, position: int, options: StageAOptions, embed: Embed | None) -> tuple[dict, Any]:
    """The row of a pair, and the model's input if the model is to see it."""
    sample_id = make_id(shard, position)
    normalized = normalize_text(pair.text)
    named = normalize_text(pair.label_text or pair.text)
    if pair.drop is None and (is_blank(normalized) or is_blank(named)):
        pair.drop = reasons.BLANK_TEXT
    row = {
        'id': sample_id,
        'shard': shard,
        'key': pair.key,
        'image_offset': pair.offset,
        'image_size': pair.size,
        'path': pair.path,
        'width': 0,
        'height': 0,
        'phash': 0,
        'text': pair.text,
        'label_text': pair.label_text,
        'normalized': normalized,
        'label': -1 if is_blank(named) else text_label(named),
        'query': pair.query,
        'words': len(normalized.split()),
        'sampling': sampling_hash(options.seed, sample_id),
        'score': None,
        'embedding': None,
        'augmented': pair.augmented,
        'pairs': pair.pairs,
        'drop': pair.drop,
    }
    image = None
    if pair.image is not None:
        colour = embed is not None and pair.drop is None
        image, reason = _look(pair.image, row, options, embed.least if colour else 0)
        row['drop'] = row['drop'] or reason
    if image is None or row['drop'] is not None or embed is None:
        return row, None
    return row, embed.prepare(image)


def _look(data: bytes, row: dict, options: StageAOptions, least: int) -> tuple[np.ndarray | None, str | None]:
    """Decode a picture and put size and hash into its row; returns it, if it may be kept, or the reason if not.

    Args:
        data: the file's content.
        row: the row.
        options: see :func:`process_shard`.
        least: pixels that the model needs of the shorter side; 0: no model looks, so that brightness is enough.
    """
    size, reason = promised_size(data, options.max_pixels)
    if size is not None:
        row['width'], row['height'] = size
    if reason is not None:
        return None, reason
    shorter, longer = sorted(size)
    if shorter < options.min_side:
        return None, reasons.TOO_SMALL
    if longer > options.max_aspect * shorter:
        return None, reasons.ASPECT
    enough = max(least, LEAST_SIDE)
    reduction = next((by for by in REDUCTIONS if options.reduced and shorter >= by * enough), 1)
    try:
        # as training shows it: what hides behind transparent pixels, often black, would make all icons copies
        image = decode_image(data, WHITE, reduction, grey=not least)
    except ValueError:
        return None, reasons.UNDECODABLE
    row['phash'] = perceptual_hash(image)
    return image, None


def promised_size(data: bytes, max_pixels: int) -> tuple[tuple[int, int] | None, str | None]:
    """Read width and height of a picture from its header; returns them, and the reason if it is not to be decoded.

    Args:
        data: the picture's file.
        max_pixels: more are not decoded.
    """
    try:
        size = header_size(data)
    except Image.DecompressionBombError:
        return None, reasons.BOMB
    if size is None:
        return None, reasons.UNDECODABLE
    return size, reasons.BOMB if size[0] * size[1] > max_pixels else None


def _score(waiting: list[tuple[dict, Any]], embed: Embed) -> None:
    """Let the model see waiting pairs; put scores, embeddings and reasons into their rows."""
    images, texts = embed([image for _, image in waiting], [row['text'] for row, _ in waiting])
    scores = (images * texts).sum(1)
    for (row, _), score, feature in zip(waiting, scores.tolist(), images, strict=True):
        if not np.isfinite(score) or not np.isfinite(feature).all():
            row['drop'] = reasons.SCORE_NOT_FINITE
            continue
        row['score'], row['embedding'] = score, feature
    waiting.clear()


def _table(rows: list[dict], width: int | None) -> Any:
    pa = require_pyarrow()
    schema = sidecar_schema(width)
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.name == 'embedding':
            # pyarrow cannot read a parquet file with null among lists of a fixed size
            flat = np.zeros((len(values), width), np.float16)
            for place, value in enumerate(values):
                if value is not None:
                    flat[place] = value
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), width))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)
