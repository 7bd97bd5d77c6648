"""The report of CapFilt: texts that were kept and rejected by their source, in numbers, and pictures to look at."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from florence_mm.utils.files import write_atomic

from . import reasons
from .capfilt_texts import SOURCES, SYNTHETIC, WEB, ShardTexts, is_kept, read_texts
from .hashing import sampling_hash
from .inputs import RawShard
from .options import CapFiltOptions
from .pictures import fetch_pictures
from .report import describe_bars
from .stage_a import KEPT

#: Lower bounds of the bars of the probabilities.
EDGES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
#: Pictures to look at of each kind: both texts kept, one of them, none.
EXAMPLES = 4


class Example(NamedTuple):
    """A picture to look at.

    Attributes:
        data: the picture's file.
        texts: its texts with source, probability of a match, and whether it is kept.
    """

    data: bytes
    texts: list[tuple[str, str, float, bool]]


@dataclass
class TextReport:
    """What CapFilt has made of its texts.

    Attributes:
        content: numbers, in JSON's types.
        examples: pictures to look at, by what became of their texts.
    """

    content: dict[str, Any]
    examples: dict[str, list[Example]] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Number of texts that are kept."""
        return sum(self.content[source][KEPT] for source in SOURCES)

    @property
    def total(self) -> int:
        """Number of texts, given and drawn."""
        return sum(self.content[source]['texts'] for source in SOURCES)

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` to a folder."""
        write_atomic(folder / 'report.json', json.dumps(self.content, indent=1) + '\n')
        write_atomic(folder / 'report.md', describe(self.content))


def make_text_report(texts: Sequence[ShardTexts], shards: Sequence[RawShard], options: CapFiltOptions) -> TextReport:
    """Gather the report of a run.

    Args:
        texts: the texts of each raw shard.
        shards: the raw shards, for the pictures of examples.
        options: of the run.
    """
    by_source = {source: Counter() for source in SOURCES}
    bars = {source: {kind: np.zeros(len(EDGES), np.int64) for kind in ('read', KEPT)} for source in SOURCES}
    first: dict[str, list[tuple[int, int, list[dict]]]] = {}
    for place, one in enumerate(texts):
        for rows in read_texts(one):
            for row in rows:
                kept = is_kept(row, options.threshold)
                by_source[row['source']][KEPT if kept else row['drop'] or reasons.LOW_SCORE] += 1
                if row['match'] is not None:
                    bar = int(np.searchsorted(EDGES, row['match'], side='right')) - 1
                    bars[row['source']]['read'][bar] += 1
                    bars[row['source']][KEPT][bar] += kept
            kind = _kind(rows, options.threshold)
            if kind is not None:
                hashed = sampling_hash(options.seed, rows[0]['id'])
                known = [*first.get(kind, []), (hashed, place, rows)]
                first[kind] = sorted(known, key=lambda entry: entry[:2])[:EXAMPLES]
    content: dict[str, Any] = {
        'pictures': sum(one.pictures for one in texts),
        'threshold': options.threshold,
        'top_p': options.top_p,
        'seed': options.seed,
    }
    for source, counts in by_source.items():
        rejected = {name: counts[name] for name in reasons.REASONS if counts[name]}
        content[source] = {'texts': counts.total(), KEPT: counts[KEPT], 'rejected': rejected}
        if counts.total() != counts[KEPT] + sum(rejected.values()):  # a promise of this module, whatever the inputs
            raise RuntimeError(f'{counts.total()} texts were read and {dict(counts)} found')
    content['histograms'] = {
        f'match, {source}': {'from': list(EDGES)} | {kind: counts.tolist() for kind, counts in kinds.items()}
        for source, kinds in bars.items()
    }
    return TextReport(content, _examples(first, shards, options.threshold))


def _kind(rows: Sequence[Mapping[str, Any]], threshold: float) -> str | None:
    """What became of the texts of a picture; None if the filter did not see texts of both sources."""
    best = {row['source']: row for row in reversed(rows) if row['match'] is not None}
    if set(best) != set(SOURCES):
        return None
    web, synthetic = (is_kept(best[source], threshold) for source in (WEB, SYNTHETIC))
    if web == synthetic:
        return 'both kept' if web else 'both rejected'
    return f'{WEB if web else SYNTHETIC} kept'


def _examples(
    first: Mapping[str, list[tuple[int, int, list[dict]]]], shards: Sequence[RawShard], threshold: float
) -> dict[str, list[Example]]:
    examples = {}
    for kind in sorted(first):
        found = []
        for _, place, rows in first[kind]:
            (data,) = fetch_pictures(shards[place], rows[:1])
            seen = [row for row in rows if row['match'] is not None]
            texts = [(row['source'], row['text'], row['match'], is_kept(row, threshold)) for row in seen]
            found.append(Example(data, texts))
        examples[kind] = found
    return examples


def describe(content: dict[str, Any]) -> str:
    """Write the numbers of a report as Markdown."""
    lines = [
        '# CapFilt',
        '',
        f'{content["pictures"]:,} pictures were captioned (nucleus {content["top_p"]}, seed {content["seed"]}). A text '
        f'is kept if the filter gives it a probability of a match of at least {content["threshold"]}.',
        '',
        '| source | texts | kept | share |',
        '|---|---|---|---|',
    ]
    for source in SOURCES:
        counts = content[source]
        share = f'{100 * counts[KEPT] / counts["texts"]:.1f} %' if counts['texts'] else '-'
        lines.append(f'| {source} | {counts["texts"]:,} | {counts[KEPT]:,} | {share} |')
    lines += ['', '| source | rejected for | texts |', '|---|---|---|']
    for source in SOURCES:
        lines += [f'| {source} | {name} | {count:,} |' for name, count in content[source]['rejected'].items()]
    for name, bars in content['histograms'].items():
        lines += describe_bars(name, bars)
    return '\n'.join(lines) + '\n'
