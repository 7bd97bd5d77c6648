"""Pictures of a curation report: histograms, and sheets of pairs that were kept or dropped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from florence_mm.curation.report import KEPT, Report, bar_labels
from florence_mm.formats.image import WHITE, decode_image

from .canvas import INK, PAPER, SHADE, fit_image, font, save_png, tile, wrap_text
from .figures import save_figure

_READ, _KEPT, _INK = '#d0d7de', '#0969da', '#57606a'
_SIDE, _LINE, _LINES = 150, 15, 3
_COLUMNS = 6


def draw_report(report: Report, folder: str | Path) -> None:
    """Draw ``histograms.png``, and ``samples_REASON.png`` for what is kept and for each reason with samples.

    Args:
        report: of a run of curation.
        folder: for the files.
    """
    folder = Path(folder)
    draw_histograms(report.content['histograms'], folder / 'histograms.png')
    for path in folder.glob('samples_*.png'):  # those of an earlier run
        if path.stem.removeprefix('samples_') not in report.samples:
            path.unlink()
    for name, samples in report.samples.items():
        cells = [draw_pair(sample.data, sample.text) for sample in samples]
        title = 'kept' if name == KEPT else f'dropped: {name}'
        save_png(tile(cells, _COLUMNS, title=title), folder / f'samples_{name}.png')


def draw_histograms(histograms: Mapping[str, Mapping[str, Sequence[Any]]], path: str | Path) -> None:
    """Draw histograms of a report side by side, what was read behind what is kept, and write the PNG.

    Args:
        histograms: by name, ``from`` with the lower bounds of the bars, ``kept`` and perhaps ``read`` with their sizes.
        path: the file.
    """
    from matplotlib.figure import Figure

    columns = min(3, max(len(histograms), 1))
    rows = max(1, -(-len(histograms) // columns))
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=110, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(histograms) :]:
        axes.set_axis_off()
    for axes, (name, bars) in zip(grid, histograms.items(), strict=False):
        places = np.arange(len(bars['from']))
        if 'read' in bars:
            axes.bar(places, bars['read'], width=0.86, color=_READ, label='read')
        axes.bar(places, bars['kept'], width=0.56, color=_KEPT, label='kept')
        axes.set_xticks(places, bar_labels(bars['from']), rotation=60, ha='right', fontsize=7)
        axes.tick_params(axis='y', labelsize=7, colors=_INK)
        axes.set_title(name, fontsize=10, loc='left')
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path, durable=False)


def draw_pair(data: bytes, text: str) -> np.ndarray:
    """Draw a picture with its text below; a picture that cannot be decoded is an empty field.

    Args:
        data: the picture's file.
        text: the text.

    Returns:
        ``(198, 150, 3)`` uint8 RGB.
    """
    cell = Image.new('RGB', (_SIDE, _SIDE + _LINES * _LINE + 3), PAPER)
    try:
        picture = fit_image(decode_image(data, WHITE), _SIDE, _SIDE)
    except ValueError:
        picture = np.full((_SIDE, _SIDE, 3), SHADE, np.uint8)
    cell.paste(Image.fromarray(picture), (0, 0))
    face, draw = font(11), ImageDraw.Draw(cell)
    for i, line in enumerate(wrap_text(text, face, _SIDE, _LINES)):
        draw.text((0, _SIDE + 3 + i * _LINE), line, font=face, fill=INK)
    return np.array(cell)
