"""Columns of the files between the stages: stage A's sidecars, and what stage B keeps and drops."""

from typing import TYPE_CHECKING

from florence_mm.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

#: Bits of an id below the number of its shard; a shard has at most 2**32 samples.
POSITION_BITS = 32
#: Largest number of a shard: an id is a signed integer of 64 bits.
MAX_SHARD = 2**31 - 1


def make_id(shard: int, position: int) -> int:
    """Number a sample by its shard and its position there, both from 0, so that ids order samples as they lie.

    >>> make_id(0, 5), make_id(1, 0)
    (5, 4294967296)
    """
    return shard << POSITION_BITS | position


def split_id(sample_id: int) -> tuple[int, int]:
    """Return the shard of an id and the position there."""
    return sample_id >> POSITION_BITS, sample_id & (2**POSITION_BITS - 1)


def sidecar_schema(embedding: int | None = None) -> 'pyarrow.Schema':
    """Schema of a sidecar: a row for every sample of a raw shard, dropped ones too, in the order of ids.

    Samples that are not there, which only the downloader or a damage tells, have one row for each reason.

    ================  ==================================================================================
    ``id``            :func:`make_id`
    ``shard``         number of the raw shard
    ``key``           name of the sample in its shard
    ``image_offset``  place of the picture's bytes in the tar, and their number; -1 if they are not in a tar
    ``path``          the picture's file, of a manifest or folder; null otherwise
    ``width``         of the upright picture, in pixels; 0 if it could not be read
    ``phash``         perceptual hash (:mod:`florence_mm.curation.hashing`); 0 if it was not computed
    ``text``          the text as it was given, '' without one
    ``label_text``    what the label is made of, if it is not ``text``; null otherwise
    ``normalized``    the text after :func:`florence_mm.language.labels.normalize_text`
    ``label``         :func:`florence_mm.language.labels.text_label` of ``label_text`` or else ``text``, -1 without text
    ``query``         the search that found the picture; null if unknown
    ``words``         number of words of ``normalized``
    ``sampling``      hash of the run's seed and the id: to choose samples at random, take the smallest ones
    ``score``         cosine of picture and text; null without a model, never NaN in a kept row
    ``embedding``     L2-normalised feature of the picture, zeros without one; no column where it was not asked for
    ``augmented``     whether ``text`` is already inside a template
    ``pairs``         raw pairs that the row stands for: 1, or the number of those that are not there
    ``drop``          reason (:mod:`florence_mm.curation.reasons`); null: kept by stage A
    ================  ==================================================================================

    Args:
        embedding: width of the embeddings; None: no such column.
    """
    pa = require_pyarrow()
    fields = [
        ('id', pa.int64()),
        ('shard', pa.int32()),
        ('key', pa.string()),
        ('image_offset', pa.int64()),
        ('image_size', pa.int64()),
        ('path', pa.string()),
        ('width', pa.int32()),
        ('height', pa.int32()),
        ('phash', pa.uint64()),
        ('text', pa.string()),
        ('label_text', pa.string()),
        ('normalized', pa.string()),
        ('label', pa.int64()),
        ('query', pa.string()),
        ('words', pa.int32()),
        ('sampling', pa.uint64()),
        ('score', pa.float32()),
        ('augmented', pa.bool_()),
        ('pairs', pa.int64()),
        ('drop', pa.string()),
    ]
    if embedding is not None:
        fields.insert(-3, ('embedding', pa.list_(pa.float16(), embedding)))
    return pa.schema(fields)


def kept_schema() -> 'pyarrow.Schema':
    """Schema of ``kept.parquet``: the kept samples, ascending by ``id``.

    ``position`` is the place in the order of writing, 0 to N - 1; ``short`` marks a text that is too short to stand for
    itself, so that training puts it into a template.
    """
    pa = require_pyarrow()
    return pa.schema([('id', pa.int64()), ('position', pa.int64()), ('short', pa.bool_())])


def drops_schema() -> 'pyarrow.Schema':
    """Schema of ``drops.parquet``: what stage B drops, ascending by ``id``, and the reason."""
    pa = require_pyarrow()
    return pa.schema([('id', pa.int64()), ('drop', pa.string())])


def require_pyarrow() -> 'pyarrow':
    """Import pyarrow, or say in one sentence how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise UsageError("curation keeps its columns in parquet; install it with 'pip install pyarrow'") from None
    return pyarrow
