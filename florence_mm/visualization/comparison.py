"""Picture that compares several ways by their scores: a bar for the mean over runs, a dot for each run."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_mm.utils.files import write_atomic

from .figures import save_figure

Scores = Mapping[str, Sequence[float]]

_BAR, _DOT, _INK, _GRID = '#54aeff', '#0a3069', '#57606a', '#eaeef2'
_ROW, _WIDTH = 0.42, 4.4  # inches
_PANELS_A_ROW = 4


def draw_comparison(
    panels: Mapping[str, Scores], path: str | Path, title: str, longest: float | Mapping[str, float] = 100
) -> None:
    """Draw a panel a metric, in it a bar a way of doing it, as long as the mean of its runs, and write the PNG.

    Bars begin at 0, so that their lengths compare. A way without runs has a dash. Above four panels there are two rows.

    Args:
        panels: name of a metric -> name of a way -> its scores, one a run. The ways of all panels are those
            of the first, in its order.
        path: the PNG file.
        title: a line above.
        longest: the score where the axes end, such as 100 for those in percent; or that of each metric.

    Raises:
        ValueError: there is nothing to draw, a panel has other ways, or ``path`` does not end in .png.
    """
    from matplotlib.figure import Figure

    ways = [list(scores) for scores in panels.values()]
    if not ways or not ways[0] or any(names != ways[0] for names in ways):
        raise ValueError(f'the panels have the ways {ways}; give each panel the same ones, at least one')
    if Path(path).suffix.lower() != '.png':
        raise ValueError(f'{path} must end in .png')
    rows = 1 if len(panels) <= _PANELS_A_ROW else 2
    columns = math.ceil(len(panels) / rows)
    size = (_WIDTH * columns + 1.6, rows * (_ROW * len(ways[0]) + 0.9) + 0.4)
    figure = Figure(figsize=size, dpi=110, layout='constrained')
    parts = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in parts[len(panels) :]:
        axes.set_visible(False)
    for axes, (metric, scores) in zip(parts, panels.items(), strict=False):
        end = longest[metric] if isinstance(longest, Mapping) else longest
        axes.set_title(metric, fontsize=10)
        axes.set_xlim(0, 1.12 * end)
        axes.set_xticks([0.2 * step * end for step in range(6)])
        axes.set_yticks(range(len(scores)), list(scores), fontsize=9)
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.tick_params(length=0, colors=_INK)
        axes.grid(axis='x', color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        for place, runs in enumerate(scores.values()):
            if not runs:
                axes.text(0.01 * end, place, '–', color=_INK, va='center')
                continue
            mean = sum(runs) / len(runs)
            axes.barh(place, mean, height=0.6, color=_BAR)
            axes.plot(runs, [place] * len(runs), 'o', color=_DOT, markersize=4)
            shown = f'{mean:.1f}' if end >= 10 else f'{mean:.3f}'
            axes.text(max(mean, *runs) + 0.02 * end, place, shown, color=_INK, fontsize=9, va='center')
    figure.suptitle(title, fontsize=11, fontweight='bold')
    save_figure(figure, path)


def axis_ends(panels: Mapping[str, Scores]) -> dict[str, int]:
    """A round number where the axis of each panel ends: 1 for all scores up to 1, so that these have one scale.

    >>> axis_ends({'accuracy': {'a': [0.5], 'b': []}, 'CIDEr-D': {'a': [2.4, 3.1]}, 'seconds': {'a': [571.2]}})
    {'accuracy': 1, 'CIDEr-D': 4, 'seconds': 600}
    """
    ends = {}
    for name, scores in panels.items():
        longest = max([1, *(math.ceil(score) for runs in scores.values() for score in runs)])
        step = 1 if longest <= 10 else 5 * 10 ** (len(str(longest)) - 2)
        ends[name] = step * math.ceil(longest / step)
    return ends


def write_comparison(folder: Path, table: str, results: Any, panels: Mapping[str, Scores], title: str) -> None:
    """Write ``comparison.md``, ``comparison.json`` and ``comparison.png``.

    Args:
        folder: the folder.
        table: the Markdown.
        results: what JSON can hold.
        panels, title: see :func:`draw_comparison`.
    """
    write_atomic(folder / 'comparison.md', table)
    write_atomic(folder / 'comparison.json', json.dumps(results, indent=2))
    draw_comparison(panels, folder / 'comparison.png', title, axis_ends(panels))
