"""A run of curation: stage A over the raw shards, stage B over their columns, stage C to shards for training.

A run that was stopped goes on where it was: each stage knows by records what is whole and of the same input and
options (:mod:`florence_mm.curation.state`), and does the rest.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from florence_mm.errors import UsageError, shown_path
from florence_mm.formats.shards import ShardSet
from florence_mm.utils.progress import ProgressLog

from . import reasons
from .inputs import RawShard, find_shards
from .options import InputOptions, StageAOptions, as_json
from .pool import run_tasks
from .report import Report, make_report
from .settings import Settings
from .stage_a import KEPT, Counts, Embed, process_shard, sidecar_path
from .stage_b import select
from .stage_c import MARK, Places, claim_folder, write_kept
from .state import held, one_run, read_record, write_record

#: Options of stage B that change how it computes and not what.
_NO_EFFECT = ('engine', 'memory', 'threads')
#: Folder of the report in that of the set.
REPORT = 'report'
#: ``make_embed()``; it is sent to other processes, so a function of a module or an object of a class of one.
MakeEmbed = Callable[[], Embed]


class Result(NamedTuple):
    """What a run has made.

    Attributes:
        shards: the set of curated shards.
        pairs: raw pairs that were read, or counted by the downloader.
        by_reason: number of pairs by the reason that dropped them, and those kept; their sum is ``pairs``.
        report: numbers and samples; also written to the folder ``report`` of the set.
    """

    shards: ShardSet
    pairs: int
    by_reason: dict[str, int]
    report: Report


class _StageA(NamedTuple):
    """What a process needs for stage A."""

    options: StageAOptions
    work: Path
    embed: Embed | None
    pictures_only: bool


def curate(
    settings: Settings, make_embed: MakeEmbed | None = None, count_tokens: Callable[[str], int] | None = None
) -> Result:
    """Curate raw pairs into shards; the same bytes for any number of workers, with either engine, stopped or not.

    Args:
        settings: see :class:`~florence_mm.curation.settings.Settings`.
        make_embed: makes the model in each process; needed if the settings have one.
        count_tokens: number of tokens of a text, for the report; None: only words are counted.

    Raises:
        UsageError: a source has nothing, nothing is kept, another run works in the folder, or a process died.
        DataError: a whole file cannot be read.
    """
    with one_run(settings.work), _one_writer(settings.out):
        shards, counts = _run_stage_a(settings.inputs, settings.work, settings, make_embed)
        listed, evaluation = _run_evaluation(settings, make_embed)
        sidecars = [(sidecar_path(settings.work, one.shard), one.digest) for one in counts]
        kept = _run_stage_b(settings, sidecars, listed, evaluation)
        by_reason = _count(counts, kept)
        _check_any_kept(by_reason)
        places = Places(shards, sidecars, settings.work, settings.out)
        print_log(f'stage C in {shown_path(settings.out)}', 'current')
        written = write_kept(kept, places, settings.stage_c, settings.workers, settings.engine)
        print_log(f'report in {shown_path(settings.out / REPORT)}', 'current')
        report = make_report([path for path, _ in sidecars], kept.parent, shards, count_tokens)
        report.write(settings.out / REPORT)
    total = sum(one.pairs for one in counts)
    if sum(by_reason.values()) != total:  # a promise of this module, whatever the inputs
        raise RuntimeError(f'{total} pairs were read and {by_reason} found')
    return Result(written, total, by_reason, report)


@contextmanager
def _one_writer(out: Path) -> Iterator[None]:
    """Hold the folder of the set; runs with other work folders could write to it too."""
    claim_folder(out)
    with held(out / MARK, f'another run writes to {shown_path(out)}; let it end, or name another out folder'):
        yield


def _run_evaluation(settings: Settings, make_embed: MakeEmbed | None) -> tuple[list[Path], list[str]]:
    """Look at the evaluation sets; returns their sidecars and the digests of these.

    Every picture that can be decoded counts, whatever its size, shape and text.
    """
    if not settings.evaluation:
        return [], []
    work = settings.work / 'evaluation'
    _, found = _run_stage_a(settings.evaluation, work, settings, make_embed, pictures_only=True)
    pairs = sum(one.pairs for one in found)
    unseen = pairs - sum(one.by_reason.get(KEPT, 0) for one in found)
    if unseen == pairs:
        raise UsageError(f'evaluation: none of {pairs} pictures can be read; correct the paths and names')
    if unseen:
        reasons_of = _in_words(sum((Counter(one.by_reason) for one in found), Counter()))
        print_log(
            f'evaluation: nothing is compared with {unseen} of {pairs} entries ({reasons_of})',
            'current',
            logging.WARNING,
        )
    return [sidecar_path(work, one.shard) for one in found], [one.digest for one in found]


def _check_any_kept(by_reason: Mapping[str, int]) -> None:
    if KEPT not in by_reason:
        raise UsageError(
            f'no pair of {sum(by_reason.values())} was kept ({_in_words(by_reason)}), so there is nothing to write; '
            'loosen the filters, or correct the inputs'
        )


def _in_words(by_reason: Mapping[str, int]) -> str:
    return ', '.join(f'{name}: {count}' for name, count in by_reason.items() if name != KEPT)


def _run_stage_a(
    sources: Sequence[InputOptions],
    work: Path,
    settings: Settings,
    make_embed: MakeEmbed | None,
    pictures_only: bool = False,
) -> tuple[list[RawShard], list[Counts]]:
    shards = find_shards(sources, work / 'lists', (settings.work, settings.out))
    make = partial(_make_context, settings.stage_a, work, make_embed, pictures_only)
    print_log(f'stage A in {shown_path(work)}: raw shards: {len(shards)}, processes: {settings.workers}', 'current')
    progress = ProgressLog(f'stage A in {shown_path(work)}', len(shards))
    counts: list[Counts] = []
    for one in run_tasks(_look_at, shards, settings.workers, settings.engine, make):
        counts.append(one)
        progress.update(len(counts))
    return shards, sorted(counts)


def _make_context(options: StageAOptions, work: Path, make_embed: MakeEmbed | None, pictures_only: bool) -> _StageA:
    return _StageA(options, work, make_embed() if make_embed is not None else None, pictures_only)


def _look_at(shard: RawShard, context: _StageA) -> Counts:
    return process_shard(shard, context.options, context.work, context.embed, context.pictures_only)


def _run_stage_b(
    settings: Settings, sidecars: Sequence[tuple[Path, str]], listed: Sequence[Path], evaluation: Sequence[str]
) -> Path:
    """Write what is kept, in another folder first, as databases leave half files under the names of whole ones."""
    folder = settings.work / 'stage_b'
    record = folder / 'stage_b.json'
    made_of = {
        'stage': 'b',
        'options': {name: value for name, value in as_json(settings.stage_b).items() if name not in _NO_EFFECT},
        'sidecars': [digest for _, digest in sidecars],
        'evaluation': list(evaluation),
    }
    if read_record(record, made_of) is None:
        unfinished = settings.work / 'stage_b.unfinished'
        for path in (unfinished, folder):
            shutil.rmtree(path, ignore_errors=True)
        print_log(f'stage B: sidecars: {len(sidecars)}', 'current')
        select([path for path, _ in sidecars], unfinished, settings.stage_b, listed)
        unfinished.rename(folder)
        write_record(record, made_of, [path for path in sorted(folder.iterdir()) if path.is_file()], {})
    return folder / 'kept.parquet'


def _count(counts: Sequence[Counts], kept: Path) -> dict[str, int]:
    """Pairs by reason, over both stages that drop, and those kept."""
    from pyarrow import parquet

    drops = kept.with_name('drops.parquet')
    found = Counter({KEPT: parquet.read_metadata(kept).num_rows})
    for one in counts:
        found.update({name: count for name, count in one.by_reason.items() if name != KEPT})
    column = parquet.read_table(drops, columns=['drop']).column('drop')
    found.update({entry['values']: entry['counts'] for entry in column.value_counts().to_pylist()})
    unknown = set(found) - {KEPT, *reasons.REASONS}
    if unknown:
        raise UsageError(f'{shown_path(drops)} has the reason {min(unknown)!r}, which is none; run stage B again')
    return {name: found[name] for name in (KEPT, *reasons.REASONS) if found[name]}
