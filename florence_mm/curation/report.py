"""The report of a run: what was read, dropped and kept, in numbers, and samples of both to look at.

One pass over the sidecars; 16 bytes of memory a kept pair, for counting texts and pictures that differ.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from florence_mm.utils.files import write_atomic

from . import reasons
from .columns import require_pyarrow
from .inputs import RawShard
from .pictures import fetch_pictures
from .stage_a import KEPT

_INFINITY = float('inf')
#: Lower bounds of the bars of each histogram; the last bar has no upper one.
EDGES = {
    'words of a text': (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 50, 100),
    'shorter side, pixels': (0, 32, 64, 128, 224, 256, 384, 512, 768, 1024, 2048),
    'longer side / shorter side': (1, 1.1, 1.25, 1.4, 1.6, 2, 3, 5),
    'score': (-_INFINITY, -0.1, 0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8),
}
_SHARED = (1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000)
_COLUMNS = (
    *('id', 'width', 'height', 'phash', 'text', 'label', 'query', 'words', 'sampling', 'score', 'pairs', 'drop'),
    *('image_offset', 'image_size', 'path', 'shard'),
)
#: Kept texts whose tokens are counted, for the mean of all.
TOKEN_TEXTS = 10_000
TOP_QUERIES = 20
#: Samples of what is kept, and of each reason.
SAMPLES = 24


class Sample(NamedTuple):
    """A pair to look at: its text and the bytes of its picture."""

    text: str
    data: bytes


@dataclass
class Report:
    """What a run has made of its pairs.

    Attributes:
        content: numbers, in JSON's types.
        samples: pairs to look at, by the reason that dropped them, or :data:`KEPT`; only those whose picture could be
            read.
    """

    content: dict[str, Any]
    samples: dict[str, list[Sample]]

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` to a folder."""
        write_atomic(folder / 'report.json', json.dumps(self.content, indent=1, ensure_ascii=False) + '\n')
        write_atomic(folder / 'report.md', describe(self.content))


@dataclass
class _Found:
    """Counts over all sidecars."""

    pairs: int = 0
    by_reason: Counter = field(default_factory=Counter)
    queries: Counter = field(default_factory=Counter)
    labels: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    words: int = 0
    histograms: dict[str, dict[str, np.ndarray]] = field(
        default_factory=lambda: {
            name: {'read': np.zeros(len(edges), np.int64), KEPT: np.zeros(len(edges), np.int64)}
            for name, edges in EDGES.items()
        }
    )
    first: dict[str, list[dict]] = field(default_factory=dict)


def make_report(
    sidecars: Iterable[Path],
    stage_b: Path,
    shards: Sequence[RawShard] = (),
    count_tokens: Callable[[str], int] | None = None,
) -> Report:
    """Gather the report of a run.

    Args:
        sidecars: those of stage A.
        stage_b: the folder with ``kept.parquet`` and ``drops.parquet``.
        shards: the raw shards, for the pictures of samples; without them there are no samples.
        count_tokens: number of tokens of a text; None: only words are counted.
    """
    from pyarrow import parquet

    kept = parquet.read_table(stage_b / 'kept.parquet', columns=['id', 'short'])
    drops = parquet.read_table(stage_b / 'drops.parquet')
    judged = drops['id'].to_numpy(), drops['drop'].to_pandas().to_numpy()
    found, kept_ids = _Found(), kept['id'].to_numpy()
    for path in sidecars:
        _count(parquet.read_table(path, columns=list(_COLUMNS)), kept_ids, judged, found)
    samples = _read_samples(found.first, shards) if shards else {}
    texts = [row['text'] for row in found.first.get(KEPT, [])]
    content: dict[str, Any] = {
        'pairs': found.pairs,
        KEPT: len(kept),
        'dropped': {
            stage: {name: found.by_reason[name] for name in names if found.by_reason[name]}
            for stage, names in (('stage A', reasons.STAGE_A), ('stage B', reasons.STAGE_B))
        },
        'texts': _count_different(found.labels),
        'pictures': _count_different(found.pictures),
        'short_texts': int(kept['short'].to_numpy(zero_copy_only=False).sum()),
        'words': found.words,
        'queries': len(found.queries),
        'top_queries': [
            [name, n] for name, n in sorted(found.queries.items(), key=lambda e: (-e[1], e[0]))[:TOP_QUERIES]
        ],
        'histograms': {
            name: {'from': [edge if np.isfinite(edge) else None for edge in EDGES[name]]}
            | {kind: counts.tolist() for kind, counts in by_kind.items()}
            for name, by_kind in found.histograms.items()
            if by_kind['read'].any()
        },
    }
    shared = {'kept pairs of a query': list(found.queries.values()), 'kept pairs of a text': _sizes(found.labels)}
    for name, sizes in shared.items():
        if len(sizes):
            content['histograms'][name] = {'from': list(_SHARED), KEPT: _histogram(np.asarray(sizes), _SHARED).tolist()}
    if count_tokens is not None and texts:
        mean = sum(map(count_tokens, texts)) / len(texts)
        content['tokens'] = {'total': round(mean * len(kept)), 'mean': round(mean, 2), 'texts_counted': len(texts)}
    return Report(content, samples)


def _count(table: Any, kept_ids: np.ndarray, judged: tuple[np.ndarray, np.ndarray], found: _Found) -> None:
    """Add a sidecar."""
    ids = table['id'].to_numpy()
    why = table['drop'].to_pandas().to_numpy(dtype=object)
    is_kept = _find(ids, kept_ids) >= 0
    place = _find(ids, judged[0])
    why[place >= 0] = judged[1][place[place >= 0]]
    why[is_kept] = KEPT
    pairs = table['pairs'].to_numpy()
    found.pairs += int(pairs.sum())
    sampling = table['sampling'].to_numpy()
    width, height, words = (table[name].to_numpy() for name in ('width', 'height', 'words'))
    seen = width > 0
    short, long = np.minimum(width, height), np.maximum(width, height)
    score = table['score'].to_numpy().astype(np.float64)
    for name, values, known in (
        ('words of a text', words, table['label'].to_numpy() >= 0),
        ('shorter side, pixels', short, seen),
        ('longer side / shorter side', long / np.maximum(short, 1), seen),
        ('score', score, np.isfinite(score)),
    ):
        for kind, which in (('read', known), (KEPT, known & is_kept)):
            found.histograms[name][kind] += _histogram(values[which], EDGES[name])
    found.words += int(words[is_kept].sum())
    found.labels.append(table['label'].to_numpy()[is_kept])
    found.pictures.append(table['phash'].to_numpy()[is_kept])
    queries = table['query'].filter(require_pyarrow().array(is_kept)).drop_null()
    found.queries.update({entry['values']: entry['counts'] for entry in queries.value_counts().to_pylist()})
    for name in set(why.tolist()):
        rows = np.flatnonzero(why == name)
        found.by_reason[name] += int(pairs[rows].sum())
        most = TOKEN_TEXTS if name == KEPT else SAMPLES
        before = found.first.get(name, [])
        if len(before) == most:  # only what comes before the last of them
            rows = rows[sampling[rows] <= before[-1]['sampling']]
        rows = rows[np.lexsort((ids[rows], sampling[rows]))[:most]]
        rows = [row | {'seen': row['width'] > 0} for row in table.take(rows).to_pylist()]
        found.first[name] = sorted(before + rows, key=lambda row: (row['sampling'], row['id']))[:most]


def _find(ids: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Place of each id in an ascending list, -1 for those that are not there."""
    if not len(among):
        return np.full(len(ids), -1)
    place = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return np.where(among[place] == ids, place, -1)


def _histogram(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side='right') - 1, minlength=len(edges))


def _count_different(parts: list[np.ndarray]) -> int:
    return len(_sizes(parts))


def _sizes(parts: list[np.ndarray]) -> np.ndarray:
    """How often each value occurs."""
    return np.unique(np.concatenate(parts), return_counts=True)[1] if parts else np.empty(0, np.int64)


def _read_samples(first: dict[str, list[dict]], shards: Sequence[RawShard]) -> dict[str, list[Sample]]:
    by_number = {shard.number: shard for shard in shards}
    samples = {}
    for name in (KEPT, *reasons.REASONS):
        rows = [row for row in first.get(name, [])[:SAMPLES] if row['seen']]
        data: dict[int, bytes] = {}
        for number in sorted({row['shard'] for row in rows}):
            mine = sorted((row for row in rows if row['shard'] == number), key=lambda row: row['id'])
            pictures = fetch_pictures(by_number[number], mine)
            data.update((row['id'], picture) for row, picture in zip(mine, pictures, strict=True))
        if rows:
            samples[name] = [Sample(row['text'], data[row['id']]) for row in rows]
    return samples


def describe(content: dict[str, Any]) -> str:
    """Write the numbers of a report as Markdown."""
    pairs = content['pairs']
    lines = [
        '# Curated pairs',
        '',
        f'{_number(content[KEPT])} of {_number(pairs)} pairs are kept ({_percent(content[KEPT], pairs)}), with '
        f'{_number(content["texts"])} different texts, {_number(content["pictures"])} different pictures and '
        f'{_number(content["words"])} words. {_number(content["short_texts"])} texts are marked as short.',
        '',
    ]
    if 'tokens' in content:
        tokens = content['tokens']
        lines += [
            f'About {_number(tokens["total"])} tokens: {tokens["mean"]} a text, the mean of '
            f'{_number(tokens["texts_counted"])} kept texts.',
            '',
        ]
    lines += ['| stage | dropped for | pairs | share |', '|---|---|---|---|']
    for stage, names in content['dropped'].items():
        lines += [f'| {stage} | {name} | {_number(n)} | {_percent(n, pairs)} |' for name, n in names.items()]
    lines.append(f'| | kept | {_number(content[KEPT])} | {_percent(content[KEPT], pairs)} |')
    if content['queries']:
        lines += ['', f'{_number(content["queries"])} queries; those with most kept pairs:', '']
        lines += ['| query | kept pairs |', '|---|---|']
        lines += [f'| {_cell(name)} | {_number(n)} |' for name, n in content['top_queries']]
    for name, bars in content['histograms'].items():
        lines += describe_bars(name, bars)
    return '\n'.join(lines) + '\n'


def describe_bars(name: str, bars: Mapping[str, Sequence[Any]]) -> list[str]:
    """Write a histogram as the lines of a table of Markdown, without its empty ends.

    Args:
        name: its name.
        bars: ``from`` with the lower bounds of the bars, ``kept`` and perhaps ``read`` with their sizes.
    """
    kinds = [kind for kind in ('read', KEPT) if kind in bars]
    lines = ['', f'| {name} | {" | ".join(kinds)} |', '|---' * (1 + len(kinds)) + '|']
    labels = bar_labels(bars['from'])
    filled = [i for i in range(len(labels)) if any(bars[kind][i] for kind in kinds)]
    for i in range(filled[0], filled[-1] + 1) if filled else ():
        lines.append(f'| {labels[i]} | {" | ".join(_number(bars[kind][i]) for kind in kinds)} |')
    return lines


def bar_labels(edges: Sequence[float | None]) -> list[str]:
    """Name the bars of a histogram by their bounds.

    >>> bar_labels([None, 0, 0.5, 1])
    ['below 0', '0 to 0.5', '0.5 to 1', 'from 1']
    >>> bar_labels([1, 2, 5])
    ['1', '2 to 4', 'from 5']
    """
    whole = all(edge is None or edge == int(edge) for edge in edges)
    labels = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        if low is None:
            labels.append(f'below {high:g}')
        elif high is None:
            labels.append(f'from {low:g}')
        elif whole:
            labels.append(f'{low:g}' if high == low + 1 else f'{low:g} to {high - 1:g}')
        else:
            labels.append(f'{low:g} to {high:g}')
    return labels


def _number(value: int) -> str:
    return f'{value:,}'


def _percent(part: int, whole: int) -> str:
    return f'{100 * part / whole:.2f} %' if whole else '-'


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|')
