"""The table of a suite: JSON, markdown, and a picture beside the paper's figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from florence_mm.utils.files import write_atomic
from florence_mm.version import __version__
from florence_mm.visualization.score_table import Score, draw_scores

from .base import GROUPS, OFFICIAL, PRESENT
from .paper import MEANS, PAPER

DONE, MISSING, UNTRAINED, FAILED = 'done', 'missing', 'no checkpoint', 'failed'
#: Status of a protocol that a model of this kind cannot do.
UNSUITED = 'not for this model'
#: Heading of what the stars mean.
PARTIAL_SETS = 'Partial sets (\\*), whose figures are not to be compared with the paper'


@dataclass(frozen=True)
class Row:
    """Outcome of one protocol.

    Args:
        name: its name.
        group: its group.
        metric: the figure of the table.
        status: :data:`DONE`, :data:`MISSING`, :data:`UNTRAINED`, :data:`UNSUITED` or :data:`FAILED`.
        note: what is missing or failed, or what the reader must know.
        figures: all figures, 0 to 1 where they are fractions.
        seconds: time of the evaluation.
        kept: whether it is the result of an earlier run.
        checkpoint: the evaluated checkpoint.
    """

    name: str
    group: str
    metric: str
    status: str
    note: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    kept: bool = False
    checkpoint: str | None = None

    @property
    def part(self) -> str | None:
        """How much of the set was there, as in "40 of 25,250 samples"; None if all of it."""
        if PRESENT not in self.figures:
            return None
        return f'{self.figures[PRESENT]:,.0f} of {self.figures[OFFICIAL]:,.0f} samples'


@dataclass(frozen=True)
class Line:
    """Line of the table: one figure of a protocol, or a mean over several.

    Args:
        name: the protocol, or what the mean is over.
        group: group of the protocol.
        metric: name of the figure.
        ours: our figure in percent; None if there is none.
        paper: the paper's in percent; None if it has none.
        source: where the paper has it.
        status: status of the protocol.
        partial: whether ours is of a set that is not complete, which is no figure to compare with the paper's.
        interval: half the width of the 95 % interval of ours in percent; None if there is none.
    """

    name: str
    group: str
    metric: str
    ours: float | None
    paper: float | None
    source: str
    status: str
    partial: bool = False
    interval: float | None = None


def table_lines(rows: Sequence[Row]) -> list[Line]:
    """Make the lines of the table: the rows' figures, others that the paper has beside them, and the paper's means."""
    lines = [line for row in rows for line in _lines(row)]
    for mean in MEANS:
        found = [line for line in lines if line.name in mean.protocols and line.metric == mean.metric]
        if len(found) != len(mean.protocols):  # a part of the suite, or another suite
            continue
        ours = [line.ours for line in found if line.ours is not None]
        whole = len(ours) == len(found)
        status = DONE if whole else f'{len(ours)} of {len(found)} sets'
        place = lines.index(found[-1]) + 1
        value = sum(ours) / len(ours) if whole else None
        partial = any(line.partial for line in found)
        line = Line(mean.name, found[0].group, mean.metric, value, mean.value, mean.source, status, partial)
        lines.insert(place, line)
    return lines


def _lines(row: Row) -> list[Line]:
    entry = PAPER.get(row.name)
    figures, source = (entry.figures, entry.source) if entry else ({}, '')
    lines = []
    for metric in dict.fromkeys((row.metric, *figures)):
        value = row.figures.get(metric)
        ours = None if value is None else 100 * value
        half = row.figures.get('interval') if metric == row.metric else None
        interval = None if half is None else 100 * half
        partial = row.part is not None
        lines.append(
            Line(row.name, row.group, metric, ours, figures.get(metric), source, row.status, partial, interval)
        )
    return lines


def write_table(rows: Sequence[Row], folder: str | Path, about: Mapping[str, str | None], drawn: bool = True) -> None:
    """Write ``results.json``, ``results.md`` and ``results.png``.

    Args:
        rows: the outcomes, in the order of the table.
        folder: where to write.
        about: what was evaluated, for the head of the table: suite, config, checkpoint.
        drawn: whether to draw the picture, which takes half a second.
    """
    folder = Path(folder)
    lines = table_lines(rows)
    content = {
        **about,
        'version': __version__,
        'protocols': [_json_row(row) for row in rows],
        'table': [
            {key: value for key, value in vars(line).items() if key not in ('group', 'status')} for line in lines
        ],
    }
    write_atomic(folder / 'results.json', json.dumps(content, indent=2))
    write_atomic(folder / 'results.md', markdown(rows, about))
    if drawn:
        title = ', '.join(Path(value).name for value in about.values() if value)
        draw_scores([_score(line) for line in lines], folder / 'results.png', title)


def _json_row(row: Row) -> dict:
    values = {**vars(row), 'part': row.part}
    return {key: value for key, value in values.items() if value is not None and value != {}}


def _score(line: Line) -> Score:
    name = line.name.removeprefix(f'{line.group}/')
    metric = metric_name(line.metric)
    return Score(line.group, name, metric, line.ours, line.paper, line.status, line.partial, line.interval)


def metric_name(metric: str) -> str:
    """Shorten the key of a metric for people.

    >>> metric_name('retrieval/i2t_R@1'), metric_name('bbox/AP50')
    ('i2t R@1', 'AP50')
    """
    return metric.rpartition('/')[2].replace('_', ' ')


def markdown(rows: Sequence[Row], about: Mapping[str, str | None]) -> str:
    """Write the table in markdown: a section a group, then notes, what is missing and what failed."""
    lines = table_lines(rows)
    text = ['# Evaluation', '', *(f'- {key}: `{value}`' for key, value in about.items() if value), '']
    for group in GROUPS:
        part = [line for line in lines if line.group == group]
        if not part:
            continue
        text += [
            f'## {group}',
            '',
            '| protocol | metric | ours | paper | difference | source |',
            '|---|---|---|---|---|---|',
        ]
        text += [_markdown_line(line) for line in part]
        text.append('')
    for title, chosen in (
        (PARTIAL_SETS, {row.name: row.part for row in rows if row.part}),
        ('Notes', _notes(rows, DONE)),
        ('Missing', _notes(rows, MISSING, UNTRAINED)),
        ('Not for this model', _notes(rows, UNSUITED)),
        ('Failed', _notes(rows, FAILED)),
    ):
        if chosen:
            text += [f'## {title}', '', *(f'- **{name}**: {note}' for name, note in chosen.items()), '']
    return '\n'.join(text)


def _notes(rows: Sequence[Row], *statuses: str) -> dict[str, str]:
    return {row.name: row.note for row in rows if row.status in statuses and row.note}


def ours_in_words(line: Line, absent: str) -> str:
    """Write our figure of a line with its interval, and a star if it is of a part of the set.

    Args:
        line: the line.
        absent: what to write if there is none.
    """
    if line.ours is None:
        return absent
    interval = '' if line.interval is None else f' ± {line.interval:.1f}'
    return f'{line.ours:.1f}{interval}{"*" * line.partial}'


def _markdown_line(line: Line) -> str:
    ours = ours_in_words(line, line.status).replace('*', r'\*')
    paper = '' if line.paper is None else f'{line.paper:g}'
    compared = line.ours is not None and line.paper is not None and not line.partial
    difference = f'{line.ours - line.paper:+.1f}' if compared else ''
    return f'| {line.name} | {metric_name(line.metric)} | {ours} | {paper} | {difference} | {line.source} |'


def counts(rows: Iterable[Row]) -> str:
    """Count the rows by status in words, as in "3 done (1 kept), 2 missing"."""
    rows = list(rows)
    parts = []
    for status in (DONE, MISSING, UNTRAINED, UNSUITED, FAILED):
        number = sum(row.status == status for row in rows)
        kept = sum(row.kept for row in rows) if status == DONE else 0
        partial = sum(row.part is not None for row in rows) if status == DONE else 0
        details = [f'{kept} kept from before'] * bool(kept) + [f'{partial} of partial sets'] * bool(partial)
        if number:
            parts.append(f'{number} {status}' + (f' ({", ".join(details)})' if details else ''))
    return ', '.join(parts) or 'none'
