"""The report of a round of annotating: counts, what the texts say, where the boxes are, and examples to look at."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from florence_mm.language.labels import normalize_text
from florence_mm.utils.files import write_atomic

from . import annotation_reasons as reasons
from .annotation_items import KINDS, Item
from .annotation_options import ReportOptions
from .annotation_parsing import Parser, complexity_of
from .annotation_pictures import Picture, read_part, read_picture_file
from .report import describe_bars
from .stage_a import KEPT
from .state import combined_digest

#: Lower bounds of the bars of the histograms of kept and all boxes.
EDGES = {
    'side of a square of equal area, of the picture': (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    'width / height': (0.0, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0),
    'score': (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
}
#: Rows and columns of the map of the centres of boxes.
CELLS = 16
_MEANS = ('objects', 'attributes', 'actions', 'names', 'object_degree', 'action_degree')


class AnnotationExample(NamedTuple):
    """A picture to look at.

    Attributes:
        data: the picture's file.
        items: annotations that are kept, or that are dropped for one reason.
    """

    data: bytes
    items: list[Item]


@dataclass
class AnnotationReport:
    """What a round has made.

    Attributes:
        content: numbers, in JSON's types.
        examples: pictures with annotations that are kept (``kept``) or dropped for a reason.
    """

    content: dict[str, Any]
    examples: dict[str, list[AnnotationExample]] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Number of annotations that are kept."""
        return sum(kind[KEPT] for kind in self.content['kinds'].values())

    @property
    def total(self) -> int:
        """Number of annotations."""
        return sum(kind['annotations'] for kind in self.content['kinds'].values())

    def reasons(self) -> str:
        """The reasons and how often each occurs, in words."""
        counts: Counter = Counter()
        for kind in self.content['kinds'].values():
            counts.update(kind['dropped'])
        return ', '.join(f'{name}: {count}' for name, count in counts.items()) or 'there is none'

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` to a folder."""
        write_atomic(folder / 'report.json', json.dumps(self.content, indent=1, ensure_ascii=False) + '\n')
        write_atomic(folder / 'report.md', describe(self.content))


def make_report(
    parts: Sequence[Path], number: int, root: Path, options: ReportOptions, parser: Parser | None = None
) -> AnnotationReport:
    """Gather the report of a round.

    Args:
        parts: its pictures after filtering.
        number: of the round.
        root: folder of the pictures.
        options: see :class:`.annotation_options.ReportOptions`.
        parser: counts objects, attributes and actions of texts; None: they are not reported.
    """
    kinds = {kind: _Kind() for kind in KINDS}
    boxes, pictures, unreadable = _Boxes(), 0, Counter()
    found: dict[str, list[tuple[str, Picture]]] = {}
    for picture in (picture for part in parts for picture in read_part(part)):
        pictures += 1
        unreadable.update([picture.drop] if picture.drop else [])
        for item in picture.items:
            kinds[item.kind].add(item)
            boxes.add(item, picture.size)
        for name in dict.fromkeys(item.drop or KEPT for item in picture.items):
            if picture.size is not None and options.examples:
                known = [*found.get(name, []), (combined_digest(picture.image, name), picture)]
                found[name] = sorted(known, key=lambda entry: entry[0])[: options.examples]
    content = {
        'round': number,
        'pictures': pictures,
        'unreadable': dict(sorted(unreadable.items())),
        'kinds': {name: kind.content(options.top, parser) for name, kind in kinds.items() if kind.total},
        'parser': None if parser is None else parser.name,
        **boxes.content(),
    }
    return AnnotationReport(content, _examples(found, root))


class _Kind:
    """Counts of one kind of annotation."""

    def __init__(self) -> None:
        self.total, self.kept = 0, 0
        self.dropped: Counter = Counter()
        self.by_source: dict[str, Counter] = {}
        self.by_task: dict[str, Counter] = {}
        self.texts: Counter = Counter()
        self.words = 0
        self.shown: dict[str, str] = {}

    def add(self, item: Item) -> None:
        if item.drop is not None and item.drop not in reasons.REASONS:  # a promise of this module
            raise RuntimeError(f'{item.drop!r} is none of the reasons of annotation_reasons')
        self.total += 1
        for counts, name in ((self.by_source, item.source), (self.by_task, item.task)):
            counts.setdefault(name, Counter())[item.drop or KEPT] += 1
        if item.drop is not None:
            self.dropped[item.drop] += 1
            return
        self.kept += 1
        text = normalize_text(item.text)
        if text:
            self.texts[text] += 1
            self.words += len(text.split())
            self.shown.setdefault(text, item.text)

    def content(self, top: int, parser: Parser | None) -> dict[str, Any]:
        texts = self.texts.total()
        found: dict[str, Any] = {
            'annotations': self.total,
            KEPT: self.kept,
            'dropped': {name: self.dropped[name] for name in reasons.REASONS if self.dropped[name]},
            'sources': {name: _sums(counts) for name, counts in sorted(self.by_source.items())},
            'tasks': {name: _sums(counts) for name, counts in sorted(self.by_task.items())},
            'words': round(self.words / texts, 2) if texts else 0.0,
            'different texts': len(self.texts),
            'most frequent': [[text, count] for text, count in _most(self.texts, top)],
        }
        if parser is not None and self.texts:
            found |= self._parsed(parser, top)
        return found

    def _parsed(self, parser: Parser, top: int) -> dict[str, Any]:
        texts = list(self.texts)
        sums, phrases = Counter(), Counter()
        for text, parse in zip(texts, parser([self.shown[text] for text in texts]), strict=True):
            count, says = self.texts[text], complexity_of(parse)
            for name in _MEANS:
                sums[name] += count * getattr(says, name)
            for chunk in map(normalize_text, parse.chunks):
                phrases[chunk] += count
        total = self.texts.total()
        return {
            'per text': {name: round(sums[name] / total, 2) for name in _MEANS},
            'different noun phrases': len(phrases),
            'most frequent noun phrases': [[text, count] for text, count in _most(phrases, top)],
        }


def _sums(counts: Counter) -> dict[str, int]:
    return {'annotations': counts.total(), KEPT: counts[KEPT]}


def _most(counts: Counter, top: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:top]


class _Boxes:
    """Distributions of boxes: all of them, and those that are kept."""

    def __init__(self) -> None:
        self.bars = {
            name: {kind: np.zeros(len(edges), np.int64) for kind in ('read', KEPT)} for name, edges in EDGES.items()
        }
        self.centres = np.zeros((CELLS, CELLS), np.int64)

    def add(self, item: Item, size: Sequence[int] | None) -> None:
        if item.box is None or size is None:
            return
        x0, y0, x1, y1 = item.box
        area, aspect, score = EDGES
        values = {area: ((x1 - x0) * (y1 - y0)) ** 0.5, aspect: (x1 - x0) * size[0] / ((y1 - y0) * size[1])}
        values |= {} if item.score is None else {score: item.score}
        for name, value in values.items():
            bar = int(np.searchsorted(EDGES[name], value, side='right')) - 1
            self.bars[name]['read'][bar] += 1
            self.bars[name][KEPT][bar] += item.drop is None
        if item.drop is None:
            column, row = (min(int(CELLS * centre), CELLS - 1) for centre in ((x0 + x1) / 2, (y0 + y1) / 2))
            self.centres[row, column] += 1

    def content(self) -> dict[str, Any]:
        histograms = {
            name: {'from': list(EDGES[name])} | {kind: counts.tolist() for kind, counts in kinds.items()}
            for name, kinds in self.bars.items()
        }
        return {'boxes': int(self.centres.sum()), 'histograms': histograms, 'centres': self.centres.tolist()}


def _examples(found: Mapping[str, list[tuple[str, Picture]]], root: Path) -> dict[str, list[AnnotationExample]]:
    examples: dict[str, list[AnnotationExample]] = {}
    for name in (KEPT, *reasons.REASONS):
        for _, picture in found.get(name, ()):
            data = read_picture_file(root, picture.image)
            if data is not None:
                items = [item for item in picture.items if (item.drop or KEPT) == name]
                examples.setdefault(name, []).append(AnnotationExample(data, items))
    return examples


def describe(content: Mapping[str, Any]) -> str:
    """Write the numbers of a report as Markdown."""
    made = 'annotated and filtered' if content['round'] == 0 else 'refined'
    lines = [f'# Annotations, round {content["round"]}', '', f'{content["pictures"]:,} pictures were {made}.']
    if content['unreadable']:
        found = ', '.join(f'{name} {count:,}' for name, count in content['unreadable'].items())
        lines += ['', f'Pictures that cannot be read: {found}.']
    lines += ['', '| kind | annotations | kept | words a text | different texts |', '|---|---|---|---|---|']
    for name, kind in content['kinds'].items():
        numbers = f'{kind["annotations"]:,} | {kind[KEPT]:,} | {kind["words"]:.2f} | {kind["different texts"]:,}'
        lines.append(f'| {name} | {numbers} |')
    parsed = {name: kind['per text'] for name, kind in content['kinds'].items() if 'per text' in kind}
    if parsed:
        titles = ' | '.join(name.replace('_', ' ') for name in _MEANS)
        lines += ['', f'| per text | {titles} |', '|---' * (len(_MEANS) + 1) + '|']
        lines += [f'| {name} | {" | ".join(f"{one[key]:.2f}" for key in _MEANS)} |' for name, one in parsed.items()]
    for title in ('task', 'source'):
        lines += ['', f'| kind | {title} | annotations | kept |', '|---|---|---|---|']
        for name, kind in content['kinds'].items():
            for key, counts in kind[f'{title}s'].items():
                lines.append(f'| {name} | {key} | {counts["annotations"]:,} | {counts[KEPT]:,} |')
    lines += ['', '| kind | dropped for | annotations |', '|---|---|---|']
    for name, kind in content['kinds'].items():
        lines += [f'| {name} | {reason} | {count:,} |' for reason, count in kind['dropped'].items()]
    for name, kind in content['kinds'].items():
        for title in ('most frequent', 'most frequent noun phrases'):
            if kind.get(title):
                lines += ['', f'| {name}: {title} | annotations |', '|---|---|']
                lines += [f'| {text.replace("|", "/")} | {count:,} |' for text, count in kind[title]]
    for name, bars in content['histograms'].items():
        lines += describe_bars(name, bars)
    lines += ['', f'Centres of {content["boxes"]:,} kept boxes, rows from the top:', '', '```']
    width = max(len(str(count)) for row in content['centres'] for count in row)
    lines += [' '.join(f'{count:{width}}' for count in row) for row in content['centres']]
    return '\n'.join([*lines, '```']) + '\n'
