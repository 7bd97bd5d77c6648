"""CapFilt (BLIP, arXiv 2201.12086, section 3.3): captions are drawn of all pictures, and all texts are filtered.

The captioner and the filter are two models that were fine-tuned on clean pairs, apart from each other. What the filter
takes for matches is written as a new manifest, with the source of each text, and as shards if they are asked for.

A run that was stopped goes on where it was. The probabilities of all texts are kept beside the manifest, so that
another threshold takes seconds.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from florence_mm.errors import UsageError, shown, shown_path
from florence_mm.formats.shards import ShardSet
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.utils.json_files import read_json
from florence_mm.utils.progress import ProgressLog

from .capfilt_report import TextReport, make_text_report
from .capfilt_texts import Captioner, Matcher, ShardTexts, is_kept, read_texts, write_texts
from .columns import kept_schema, require_pyarrow
from .inputs import RawShard, find_shards
from .options import CapFiltOptions, InputOptions, StageCOptions
from .reasons import LOW_SCORE
from .stage_c import Places, claim_folder, write_kept
from .state import one_run

MANIFEST, REJECTED, REPORT, SHARDS = 'manifest.jsonl', 'rejected.jsonl', 'report', 'shards'
#: File by which a folder is known as one that CapFilt writes to.
MARK = '.capfilt'
_STATE, _SETTINGS = 'state', 'settings.json'
#: Digits of a probability in a manifest: the same for any number of pictures at once, but for chance.
_DIGITS = 3
_KINDS = ('manifest', 'tars', 'folder')


@dataclass(frozen=True)
class CapFiltSettings:
    """What a run of CapFilt reads, does and writes.

    Attributes:
        source: the pictures and their texts: a manifest, tars or a folder.
        out: folder of what is written.
        options: how captions are drawn and filtered.
        shards: write shards for training too; tars need it, as their pictures have no paths.
    """

    source: InputOptions
    out: Path
    options: CapFiltOptions = CapFiltOptions()
    shards: bool = False

    def __post_init__(self) -> None:
        if self.source.kind not in _KINDS:
            raise UsageError(
                f'CapFilt reads {", ".join(_KINDS)}, and {shown_path(self.source.path)} is given as '
                f'{self.source.kind}; make shards of it with florence-mm curate'
            )
        if self.source.kind == 'tars' and not self.shards:
            raise UsageError(
                f'the pictures of {shown_path(self.source.path)} lie in tars, which a manifest cannot name; ask for '
                'shards with --shards'
            )
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f'{shown_path(self.out)} is a file; name a folder to write to')


class CapFilt(NamedTuple):
    """What a run of CapFilt has made.

    Attributes:
        manifest: the new manifest; None for tars.
        rejected: the texts that are not kept, each with the reason.
        shards: the set of shards; None if they were not asked for.
        report: numbers and examples.
        texts: for each raw shard the table of all its texts.
    """

    manifest: Path | None
    rejected: Path
    shards: ShardSet | None
    report: TextReport
    texts: list[Path]


def run_capfilt(settings: CapFiltSettings, captioner: Captioner, matcher: Matcher) -> CapFilt:
    """Caption pictures and filter their texts; the same bytes whether it was stopped or not.

    For another batch size texts are the same too, and probabilities but for rounding.

    Args:
        settings: see :class:`CapFiltSettings`.
        captioner, matcher: the models.

    Raises:
        UsageError: the source has nothing or none of its pictures can be read, no text is kept, another run works in
            the folder, or it holds a run of other settings or shards that are not asked for again.
        DataError: a whole file cannot be read.
        ValueError: a model does not return what :class:`Captioner` and :class:`Matcher` say.
    """
    out, state = settings.out, settings.out / _STATE
    claim_folder(out, MARK, 'capfilt')
    with one_run(state):
        shards = find_shards((settings.source,), state / 'lists', (out,))
        _check_same(settings, captioner, matcher)
        if (out / SHARDS).exists() and not settings.shards:  # they would be of another manifest
            raise UsageError(
                f'{shown_path(out)} has shards of an earlier run; ask for them again with --shards, or remove '
                f'{shown_path(out / SHARDS)}'
            )
        texts = _write_all(shards, settings, captioner, matcher)
        _check_any_picture(settings, texts)
        report = make_text_report(texts, shards, settings.options)
        if not report.kept:
            raise UsageError(
                f'no text of {report.total} is kept at threshold {settings.options.threshold}; lower it, or give '
                'another filter'
            )
        manifest = None if settings.source.kind == 'tars' else out / MANIFEST
        _write_manifests(texts, shards, settings, manifest)
        written = _write_shards(texts, shards, settings) if settings.shards else None
        report.write(out / REPORT)
    return CapFilt(manifest, out / REJECTED, written, report, [one.path for one in texts])


def _check_same(settings: CapFiltSettings, captioner: Captioner, matcher: Matcher) -> None:
    """Check that a run that is continued has the settings of the one that was stopped, but for the threshold."""
    options, source = settings.options, settings.source
    made_of = {
        'source': [source.kind, str(Path(source.path).expanduser().resolve())],
        'captioner': captioner.name,
        'filter': matcher.name,
        **{name: getattr(options, name) for name in ('top_p', 'texts', 'seed')},
    }
    file = settings.out / _STATE / _SETTINGS
    if not file.exists():
        write_atomic(file, json.dumps(made_of, indent=1))
        return
    before = read_json(file)
    for name, value in made_of.items():
        if before.get(name) != value:
            given = name in ('top_p', 'texts', 'seed')
            other = f'{name}={shown(before.get(name))} instead of {value}' if given else f'another {name}'
            raise UsageError(
                f'{shown_path(settings.out)} holds a run with {other}; name another folder, or remove this one to '
                'begin anew'
            )


def _write_all(
    shards: list[RawShard], settings: CapFiltSettings, captioner: Captioner, matcher: Matcher
) -> list[ShardTexts]:
    sizes = [_count_rows(shard) for shard in shards]
    progress = ProgressLog('captions and matches', None if None in sizes else sum(sizes))
    texts: list[ShardTexts] = []
    before = 0
    for shard in shards:

        def done(pairs: int, before: int = before) -> None:
            progress.update(before + pairs)

        one = write_texts(shard, settings.options, settings.out / _STATE, captioner, matcher, done)
        before += sum(one.pairs.values())
        progress.update(before)
        texts.append(one)
    return texts


def _count_rows(shard: RawShard) -> int | None:
    """Pairs of a shard, as far as they are known before it is read."""
    if shard.options.kind == 'tars':
        return shard.expected
    from pyarrow import parquet

    return parquet.read_metadata(shard.path).num_rows


def _check_any_picture(settings: CapFiltSettings, texts: list[ShardTexts]) -> None:
    if any(one.pictures for one in texts):
        return
    reasons = sum((Counter(one.pairs) for one in texts), Counter())
    found = ', '.join(f'{name}: {count}' for name, count in reasons.items())
    raise UsageError(
        f'no picture of {shown_path(settings.source.path)} can be read ({found}); correct the paths in it, or say with '
        '--prefix which folder they begin in'
    )


def _write_manifests(
    texts: list[ShardTexts], shards: list[RawShard], settings: CapFiltSettings, manifest: Path | None
) -> None:
    """Write the kept texts as a manifest, and the others with what they were rejected for."""
    root, threshold = _root(settings.source), settings.options.threshold
    with ExitStack() as stack:
        kept, rejected = (
            None
            if path is None
            else stack.enter_context(stack.enter_context(replacing(path)).open('w', encoding='utf-8'))
            for path in (manifest, settings.out / REJECTED)
        )
        for one, shard in zip(texts, shards, strict=True):
            for row in (row for rows in read_texts(one) for row in rows):
                line, file = _line(row, shard, root), kept
                if not is_kept(row, threshold):
                    line, file = line | {'reason': row['drop'] or LOW_SCORE}, rejected
                if file is not None:
                    file.write(json.dumps(line, ensure_ascii=False) + '\n')


def _root(source: InputOptions) -> Path:
    """The folder that paths of pictures are relative to, as they are in the source."""
    path = Path(source.path).expanduser()
    if source.prefix is not None:
        return Path(source.prefix).expanduser()
    return path if source.kind == 'folder' else path.resolve().parent


def _line(row: Mapping[str, Any], shard: RawShard, root: Path) -> dict[str, Any]:
    """A line of a manifest, with the columns of ``ImageTextManifest``."""
    path = row['path']
    if path is None:
        image = row['key'] if shard.options.kind != 'tars' else f'{shard.path}/{row["key"]}'
    else:
        image = path if '://' in path or not Path(path).is_relative_to(root) else os.path.relpath(path, root)
    line = {
        'image': image,
        'text': row['text'],
        'source': row['source'],
        'match': None if row['match'] is None else round(row['match'], _DIGITS),
    }
    line |= {name: row[key] for name, key in (('label', 'label_text'), ('query', 'query')) if row[key] is not None}
    return line | ({'augmented': True} if row['augmented'] else {})


def _write_shards(texts: list[ShardTexts], shards: list[RawShard], settings: CapFiltSettings) -> ShardSet:
    """Write the kept texts with their pictures as shards, by curation's stage C."""
    pa = require_pyarrow()
    from pyarrow import parquet

    threshold, state = settings.options.threshold, settings.out / _STATE
    ids = [row['id'] for one in texts for rows in read_texts(one) for row in rows if is_kept(row, threshold)]
    table = pa.table({'id': ids, 'position': list(range(len(ids))), 'short': [False] * len(ids)}, schema=kept_schema())
    with replacing(state / 'kept.parquet') as temporary:
        parquet.write_table(table, temporary)
    places = Places(shards, [(one.path, one.digest) for one in texts], state, settings.out / SHARDS)
    print_log(f'shards in {shown_path(places.out)}', 'current', logging.INFO)
    return write_kept(state / 'kept.parquet', places, StageCOptions())
