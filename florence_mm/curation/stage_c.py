"""Stage C: the kept pairs into shards of even size, with the bytes that the pictures have in the raw shards."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.errors import DataError, UsageError, shown_path
from florence_mm.formats.shards import SET_FILE, Shard, ShardIndex, ShardSet, index_path, write_set, write_shard
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog

from .columns import POSITION_BITS, require_pyarrow, split_id
from .inputs import RawShard
from .options import StageCOptions
from .pictures import extension_of, fetch_pictures
from .pool import run_tasks
from .state import combined_digest, read_record, remove_unfinished, write_record

#: File by which a folder is known as one that curation writes to.
MARK = '.curation'
_COLUMNS = ['id', 'image_offset', 'image_size', 'path', 'text', 'label_text', 'query', 'augmented']
#: Columns that only texts of CapFilt have (:mod:`florence_mm.curation.capfilt_texts`).
_OF_TEXTS = ('source',)


@dataclass(frozen=True)
class Part:
    """The samples of one shard that is to be written.

    Attributes:
        number: of the shard.
        first: position of its first sample in the set.
        ids: ``(N,)`` int64, in the order of writing.
        short: ``(N,)`` bool, texts that are to be put into a template.
        write: write it if it is not there; else only look.
    """

    number: int
    first: int
    ids: np.ndarray = field(repr=False)
    short: np.ndarray = field(repr=False)
    write: bool = True

    def __str__(self) -> str:
        return f'shard {self.number}'

    @property
    def name(self) -> str:
        """Name of its tar."""
        return f'{self.number:05}.tar'


@dataclass(frozen=True)
class Places:
    """Where stage C reads and writes, the same for all parts.

    Attributes:
        shards: the raw shards.
        sidecars: path and digest of each raw shard's sidecar.
        work, out: the work folder and that of the set.
    """

    shards: Sequence[RawShard]
    sidecars: Sequence[tuple[Path, str]]
    work: Path
    out: Path

    def record(self, number: int) -> Path:
        """Record of a shard that was written."""
        return self.work / 'stage_c' / f'{number:05}.json'


def write_kept(kept: Path, places: Places, options: StageCOptions, workers: int = 1, engine: str = 'pool') -> ShardSet:
    """Write the kept pairs as a whole set of shards; what an earlier run has written of it stays.

    ``index.json`` is removed before anything else changes and written last.

    Args:
        kept: ``kept.parquet`` of stage B.
        places: where the pairs are and the set goes.
        options: number of shards.
        workers, engine: see :func:`~florence_mm.curation.pool.run_tasks`.

    Raises:
        UsageError: nothing was kept, there are more shards than pairs, or the folder holds other tars.
        DataError: a picture is not where it was.
    """
    claim_folder(places.out)
    remove_unfinished(places.out)
    ids, short = read_kept(kept)
    bounds = divide(len(ids), options)
    parts = [
        Part(number, start, ids[start:end], short[start:end], write=False)
        for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    ]
    run = partial(run_tasks, write_part, workers=workers, engine=engine, make_context=partial(_same, places))
    done: dict[int, Shard] = dict(one for one in run(parts) if one[1] is not None)
    missing = [part for part in parts if part.number not in done]
    if missing:
        (places.out / SET_FILE).unlink(missing_ok=True)
        progress = ProgressLog(f'writing {len(missing)} shards to {shown_path(places.out)}', len(missing))
        for count, (number, shard) in enumerate(run([replace(part, write=True) for part in missing]), 1):
            done[number] = shard
            progress.update(count)
    _remove_others(places, len(parts))
    return write_set(places.out, [done[part.number] for part in parts])


def _same(places: Places) -> Places:
    return places


def read_kept(kept: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ids and flags of short texts of ``kept.parquet`` in the order of writing."""
    pa = require_pyarrow()
    from pyarrow import parquet

    try:
        table = parquet.read_table(kept, columns=['id', 'position', 'short'])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f'{shown_path(kept)} is not what stage B writes ({str(error).splitlines()[0]})') from None
    ids, position, short = (table.column(name).to_numpy() for name in ('id', 'position', 'short'))
    order = np.full(len(ids), -1)
    if len(ids) and (position.min() < 0 or position.max() >= len(ids)):
        raise DataError(f'{shown_path(kept)} has positions outside 0 to {len(ids) - 1}; run stage B again')
    order[position] = np.arange(len(ids))
    if (order < 0).any():
        raise DataError(f'{shown_path(kept)} has a position twice; run stage B again')
    return ids[order], short[order]


def divide(total: int, options: StageCOptions) -> list[int]:
    """Divide pairs into shards whose sizes differ by one at most; returns the first pair of each, and the end.

    >>> divide(10, StageCOptions(shards=4))
    [0, 2, 5, 7, 10]

    Raises:
        UsageError: there are no pairs, or fewer than shards.
    """
    if total == 0:
        raise UsageError('no pair was kept, so there is nothing to write; loosen the filters')
    shards = options.shards if options.shards is not None else -(-total // options.samples_per_shard)
    if shards > total:
        raise UsageError(f'stage_c.shards={shards} is more than the {total} pairs that were kept; ask for fewer')
    return [number * total // shards for number in range(shards + 1)]


def write_part(part: Part, places: Places) -> tuple[int, Shard | None]:
    """Write a shard, unless it is there and of the same samples.

    Returns:
        its number, and its entry in ``index.json``; None if it is not there and only to be looked for.
    """
    path = places.out / part.name
    shards = np.unique(part.ids >> POSITION_BITS).tolist()
    made_of = {
        'stage': 'c',
        'first': part.first,
        'samples': combined_digest(part.ids.tolist(), part.short.tolist()),
        'sidecars': combined_digest([places.sidecars[shard][1] for shard in shards]),
        'out': str(places.out.resolve()),
    }
    record = places.record(part.number)
    found = read_record(record, made_of)
    if found is None:
        if not part.write:
            return part.number, None
        record.unlink(missing_ok=True)
        write_shard(path, _samples(part, places))
        index = ShardIndex.read(path)
        result = {'samples': len(index), 'augmented': len(index) - len(index.originals)}
        found = write_record(record, made_of, [path, index_path(path)], result)
    by_name = {Path(name).name: entry for name, entry in found['files'].items()}
    size, digest = by_name[path.name]
    index_digest, result = by_name[index_path(path).name][1], found['result']
    return part.number, Shard(path.name, result['samples'], size, digest, index_digest, result['augmented'])


def _samples(part: Part, places: Places) -> Iterator[tuple[str, dict[str, bytes]]]:
    in_order = (np.diff(part.ids) > 0).all()
    pairs = _pairs(np.sort(part.ids), places)
    if not in_order:  # then the pictures of the whole shard are in memory
        by_id = {row['id']: (row, data) for row, data in pairs}
        pairs = (by_id[sample_id] for sample_id in part.ids.tolist())
    for place, ((row, data), short) in enumerate(zip(pairs, part.short.tolist(), strict=True)):
        content = {'text': row['text'], 'augmented': row['augmented'], 'id': row['id']}
        content |= {name: row[name] for name in ('label_text', 'query', *_OF_TEXTS) if row.get(name) is not None}
        content |= {'short': True} if short else {}
        encoded = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
        yield f'{part.first + place:012}', {extension_of(data): data, 'json': encoded}


def _pairs(ids: np.ndarray, places: Places) -> Iterator[tuple[Mapping[str, Any], bytes]]:
    """Rows of the sidecars and bytes of the pictures, by ascending ids."""
    from pyarrow import parquet

    for shard, group in groupby(ids.tolist(), lambda sample_id: split_id(sample_id)[0]):
        wanted = list(group)
        path = places.sidecars[shard][0]
        columns = [*_COLUMNS, *(name for name in _OF_TEXTS if name in parquet.read_schema(path).names)]
        table = parquet.read_table(path, columns=columns, use_threads=False)
        rows = table.take([split_id(sample_id)[1] for sample_id in wanted]).to_pylist()
        if [row['id'] for row in rows] != wanted:
            raise DataError(f'{shown_path(path)} has other ids than were kept; run stage B again')
        yield from zip(rows, fetch_pictures(places.shards[shard], rows), strict=True)


def claim_folder(out: Path, mark: str = MARK, command: str = 'curate') -> None:
    """Mark a folder as one that curation writes to.

    Args:
        out: the folder; it is created.
        mark: name of the file that marks it.
        command: the command that writes to it, for whoever reads the mark.

    Raises:
        UsageError: it holds files that curation did not write, such as the raw pairs.
    """
    mark = out / mark
    if not mark.is_file():
        # a killed run may have left the unfinished mark, whose name begins with a dot
        others = sorted(path.name for path in out.glob('[!.]*'))
        if others:
            raise UsageError(f'{shown_path(out)} holds {others[0]}, which curation did not write; name another folder')
        write_atomic(mark, f'florence-mm {command} writes and removes files here\n')


def _remove_others(places: Places, count: int) -> None:
    """Remove shards that an earlier run with more of them wrote."""
    for path in places.out.glob('*.tar'):
        if path.stem.isdecimal() and int(path.stem) >= count:
            path.unlink()
            index_path(path).unlink(missing_ok=True)
            places.record(int(path.stem)).unlink(missing_ok=True)
