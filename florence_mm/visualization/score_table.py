"""Picture of many scores beside published ones: a bar a score, a mark for the published figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .figures import save_figure

_OURS, _PUBLISHED, _ABSENT, _INK = '#0969da', '#bc4c00', '#d0d7de', '#57606a'
_PARTIAL = {'facecolor': '#ddf4ff', 'edgecolor': _OURS, 'hatch': '////', 'linewidth': 0.8}
_LINE = 0.23  # inches
_WIDTH = 9.0


@dataclass(frozen=True)
class Score:
    """One score.

    Args:
        group: heading under which it stands.
        name: what was evaluated.
        metric: name of the score.
        ours: percent; None if there is none.
        published: percent; None if there is none.
        status: why there is none.
        partial: whether it is of a part of its data, which the picture marks.
        interval: half the width of its interval in percent; None if there is none.
    """

    group: str
    name: str
    metric: str
    ours: float | None
    published: float | None
    status: str
    partial: bool = False
    interval: float | None = None


def draw_scores(scores: Sequence[Score], path: str | Path, title: str) -> Path:
    """Draw scores in percent as bars, grouped, with the published figures as marks, to a PNG file.

    Args:
        scores: the scores; those of a group stand together.
        path: the file.
        title: text above.

    Returns:
        the file.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    places: list[tuple[float, Score]] = []
    headings: list[tuple[float, str]] = []
    place, group = 0.0, None
    for score in scores:
        if score.group != group:
            group = score.group
            headings.append((place + 0.4, group))
            place += 1.4
        places.append((place, score))
        place += 1.0
    height = _LINE * (place + 5)
    figure = Figure(figsize=(_WIDTH, height), dpi=110)
    axes = figure.add_axes((0.38, _LINE * 2.4 / height, 0.58, 1 - _LINE * 4.8 / height))
    axes.set_xlim(0, 118)
    axes.set_ylim(max(place, 1.0), -0.6)
    axes.set_yticks([])
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis='x', labelsize=8, colors=_INK, length=0)
    axes.grid(axis='x', color='#eaeef2', linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ('top', 'right', 'left', 'bottom'):
        axes.spines[side].set_visible(False)
    for y, text in headings:
        axes.text(-0.645, y, text, transform=axes.get_yaxis_transform(), weight='bold', fontsize=10, va='center')
    for y, score in places:
        _draw_score(axes, y, score)
    axes.plot([], [], color=_OURS, linewidth=6, label='this checkpoint')
    if any(score.published is not None for score in scores):
        axes.plot([], [], color=_PUBLISHED, marker='|', markersize=10, markeredgewidth=2.5, linestyle='', label='paper')
    handles = axes.get_legend_handles_labels()[0]
    if any(score.partial for score in scores):
        handles.append(Patch(label='* a part of the set', **_PARTIAL))
    figure.legend(
        handles=handles,
        loc='lower left',
        bbox_to_anchor=(0.37, 0),
        ncols=3,
        fontsize=8,
        frameon=False,
    )
    figure.text(0.01, 1 - _LINE * 1.1 / height, title, fontsize=9, color=_INK, va='center')
    save_figure(figure, path)
    return Path(path)


def _draw_score(axes: object, y: float, score: Score) -> None:
    there = score.ours is not None
    label = f'{score.name}  {score.metric}'
    style = {'fontsize': 8, 'va': 'center'}
    axes.text(-0.62, y, label, transform=axes.get_yaxis_transform(), color='black' if there else _INK, **style)
    if there:
        look = _PARTIAL if score.partial else {'color': _OURS}
        axes.barh(y, score.ours, height=0.62, xerr=score.interval, error_kw={'ecolor': _INK, 'capsize': 2}, **look)
        axes.text(101, y, f'{score.ours:.1f}{"*" * score.partial}', color=_OURS, weight='bold', **style)
    else:
        axes.barh(y, 0.4, height=0.62, color=_ABSENT)
        axes.text(1.5, y, score.status, color=_INK, style='italic', **style)
    if score.published is not None:
        axes.plot([score.published] * 2, [y - 0.38, y + 0.38], color=_PUBLISHED, linewidth=2.5)
        axes.text(110, y, f'{score.published:.1f}', color=_PUBLISHED, **style)
