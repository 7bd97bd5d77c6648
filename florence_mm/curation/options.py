"""Settings of a run of curation, checked before anything is read."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from florence_mm.errors import UsageError, shown
from florence_mm.utils.nearest import near_or_all
from florence_mm.utils.numbers import is_finite, is_whole

KINDS = ('tars', 'manifest', 'parquet', 'folder')
DUPLICATES = ('one', 'texts', 'all')
PLANS = ('duckdb', 'daft', 'daft-ray')
_SIZE = re.compile(r'[1-9][0-9]*(\.[0-9]+)? ?[KMGT]i?B')
#: What a pair's fields are called in JSON, manifests and parquet files; the first name that is there counts. ``texts``,
#: a list, is of manifests alone, where it makes a pair for each of them.
FIELDS = {
    'image': ('image', 'path', 'filepath'),
    'text': ('text', 'caption'),
    'texts': ('texts',),
    'label': ('label_text', 'label'),
    'query': ('query',),
    'augmented': ('augmented',),
}


@dataclass(frozen=True)
class InputOptions:
    """One source of raw pairs.

    Attributes:
        kind: ``'tars'`` (webdataset or img2dataset), ``'manifest'`` (jsonl, csv, tsv, or parquet with paths),
            ``'parquet'`` (with the bytes of the pictures) or ``'folder'`` (pictures with .txt or .json beside them).
        path: the file or folder; may be a pattern such as ``raw/*.tar``. Matches are taken sorted by name.
        names: name of a field in the files, by field (:data:`FIELDS`), where it has another.
        query: the search that found all pairs of this source, where they do not say.
        prefix: folder of a manifest's relative paths; None: the manifest's folder.
    """

    kind: str
    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    query: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f'inputs: kind={self.kind!r} is none of {", ".join(KINDS)}')
        require('inputs: path', self.path, isinstance(self.path, str) and bool(self.path), 'a file or folder')
        for name, value in self.names.items():
            if name not in FIELDS:
                raise UsageError(f'inputs: names has {name!r}, which is no field{near_or_all(name, FIELDS)}')
            require(f'inputs: names[{name!r}]', value, isinstance(value, str) and bool(value), 'the name in the files')
        for name in ('query', 'prefix'):
            value = getattr(self, name)
            require(f'inputs: {name}', value, value is None or isinstance(value, str), 'a text or None')

    def names_of(self, name: str) -> tuple[str, ...]:
        """What a field is called in the files, by precedence."""
        return (self.names[name],) if name in self.names else FIELDS[name]


@dataclass(frozen=True)
class StageAOptions:
    """What stage A measures of a pair, and for what it drops one.

    Attributes:
        min_side: pixels that the shorter side of a picture must have.
        max_aspect: longer side of a picture divided by its shorter one, at most.
        max_pixels: pixels of a picture, at most; more are not decoded.
        embeddings: keep the feature of each picture. Needs a model.
        batch_size: pairs that the model takes at once.
        reduced: decode JPEG files at a half or a quarter where that leaves enough pixels.
        seed: of the hash that samples pairs.
    """

    min_side: int = 32
    max_aspect: float = 5.0
    max_pixels: int = 100_000_000
    embeddings: bool = False
    batch_size: int = 64
    reduced: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('min_side', 'max_pixels', 'batch_size'):
            value = getattr(self, name)
            require(f'stage_a.{name}', value, is_whole(value) and value >= 1, 'a whole number from 1')
        require(
            'stage_a.max_aspect',
            self.max_aspect,
            (is_finite(self.max_aspect) or self.max_aspect == math.inf) and self.max_aspect >= 1,
            'a number from 1',
        )
        seed = self.seed
        require('stage_a.seed', seed, is_whole(seed) and 0 <= seed < 2**32, 'a whole number from 0 to 4294967295')
        for name in ('embeddings', 'reduced'):
            require(f'stage_a.{name}', getattr(self, name), isinstance(getattr(self, name), bool), 'True or False')


@dataclass(frozen=True)
class StageBOptions:
    """Which pairs are kept of those that stage A keeps.

    Attributes:
        min_score: least cosine of picture and text; None: no such filter. Needs the scores of stage A.
        duplicates: of pictures that are near to each other keep ``'one'`` pair, or one pair a text (``'texts'``), or
            ``'all'``.
        near_bits: bits of the perceptual hash in which near pictures differ, at most.
        near_cosine: least cosine of the embeddings of near pictures, which finds crops too; None: embeddings are not
            compared. Needs the embeddings of stage A. Pairs are compared with each other for ``duplicates='one'`` only,
            with evaluation sets always.
        max_per_query: pairs kept of one query, at most, chosen at random; None: all. Pairs whose query is unknown
            are all kept.
        max_per_text: pairs kept of one text, at most, chosen in the same way; None: all.
        short_words: texts of at most so many words are marked, so that training puts them into templates.
        engine: ``'duckdb'``, ``'daft'`` (threads of this machine) or ``'daft-ray'`` (a Ray cluster).
        memory: that DuckDB takes before it writes to the disk, such as ``'8GB'``; None: most of the machine's.
        threads: of DuckDB; None: all cores.
    """

    min_score: float | None = None
    duplicates: str = 'one'
    near_bits: int = 3
    near_cosine: float | None = None
    max_per_query: int | None = None
    max_per_text: int | None = None
    short_words: int = 0
    engine: str = 'duckdb'
    memory: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ('min_score', 'near_cosine'):
            value = getattr(self, name)
            right = value is None or (is_finite(value) and -1 <= value <= 1)
            require(f'stage_b.{name}', value, right, 'from -1 to 1, or None')
        for name, values in (('duplicates', DUPLICATES), ('engine', PLANS)):
            value = getattr(self, name)
            require(f'stage_b.{name}', value, value in values, f'one of {", ".join(values)}')
        bits = self.near_bits
        require('stage_b.near_bits', bits, is_whole(bits) and 0 <= bits <= 6, 'a whole number from 0 to 6')
        for name in ('max_per_query', 'max_per_text', 'threads'):
            value = getattr(self, name)
            right = value is None or (is_whole(value) and value >= 1)
            require(f'stage_b.{name}', value, right, 'a whole number from 1, or None')
        words = self.short_words
        require('stage_b.short_words', words, is_whole(words) and words >= 0, 'a whole number from 0')
        right = self.memory is None or (isinstance(self.memory, str) and _SIZE.fullmatch(self.memory) is not None)
        require('stage_b.memory', self.memory, right, "a size such as '8GB', or None")


@dataclass(frozen=True)
class StageCOptions:
    """How many shards are written.

    Attributes:
        samples_per_shard: about how many samples a shard has; counts of shards differ by one at most.
        shards: number of shards; None: from ``samples_per_shard``.
    """

    samples_per_shard: int = 10_000
    shards: int | None = None

    def __post_init__(self) -> None:
        size, shards = self.samples_per_shard, self.shards
        require('stage_c.samples_per_shard', size, is_whole(size) and size >= 1, 'a whole number from 1')
        right = shards is None or (is_whole(shards) and shards >= 1)
        require('stage_c.shards', shards, right, 'a whole number from 1, or None')


@dataclass(frozen=True)
class CapFiltOptions:
    """How captions are drawn and filtered (:mod:`florence_mm.curation.capfilt`).

    Attributes:
        threshold: least probability of a match, as the filter says, of a text that is kept.
        top_p: probability of the nucleus that the words of a caption are drawn from, see
            :func:`florence_mm.models.generation.nucleus.nucleus_search`.
        texts: captions drawn of a picture.
        seed: of the captions.
        batch_size: pictures that the models take at once; it changes no result.
    """

    threshold: float = 0.5
    top_p: float = 0.9
    texts: int = 1
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        right = is_finite(self.threshold) and 0 <= self.threshold <= 1
        require('threshold', self.threshold, right, 'a probability, from 0 to 1')
        require('top_p', self.top_p, is_finite(self.top_p) and 0 < self.top_p <= 1, 'above 0, and at most 1')
        for name in ('texts', 'batch_size'):
            value = getattr(self, name)
            require(name, value, is_whole(value) and value >= 1, 'a whole number from 1')
        seed = self.seed
        require('seed', seed, is_whole(seed) and 0 <= seed < 2**32, 'a whole number from 0 to 4294967295')


def as_options(kind: type, given: Any, name: str) -> Any:
    """Make options of a config's dict; a misspelt key is refused.

    Args:
        kind: the class of the options.
        given: the dict.
        name: where it stands in the config, for messages.

    Raises:
        UsageError: it is no dict, has a key that there is not, lacks one, or has a wrong value.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f'{name} is {shown(given)}; expected a dict of options')
    known = {item.name for item in fields(kind)}
    for key in given:
        if key not in known:
            raise UsageError(f'{name} has {key!r}, which is no option of it{near_or_all(str(key), known)}')
    try:
        return kind(**given)
    except TypeError as error:  # a key that has no default is missing
        raise UsageError(f'{name}: {str(error).rpartition("() ")[2]}; add it') from None


def as_json(options: Any) -> dict:
    """Options in JSON's types, for the record of what a file was made with."""
    return asdict(options)


def require(name: str, value: Any, right: bool, expected: str) -> None:
    """Check an option.

    Args:
        name: what the message calls it.
        value: its value.
        right: whether the value is right.
        expected: what it must be, in words.

    Raises:
        UsageError: it is not right.
    """
    if not right:
        raise UsageError(f'{name}={shown(value)} must be {expected}')
