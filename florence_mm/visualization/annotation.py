"""Pictures of a report of annotations: distributions of boxes, and examples of what is kept and dropped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.curation.annotation_report import AnnotationExample, AnnotationReport
from florence_mm.formats.image import WHITE, decode_image

from .canvas import save_png, tile
from .curation import draw_histograms
from .detections import draw_detections
from .figures import save_figure
from .texts import Line, draw_texts

_COLUMNS = 4
_MOST = 6  # texts below a picture


def draw_annotation_report(report: AnnotationReport, folder: str | Path) -> None:
    """Draw ``histograms.png``, ``centres.png``, and ``examples_REASON.png`` for what is kept and for each reason.

    Args:
        report: of a round.
        folder: for the files.
    """
    folder = Path(folder)
    draw_histograms(report.content['histograms'], folder / 'histograms.png')
    draw_centres(report.content['centres'], folder / 'centres.png')
    for path in folder.glob('examples_*.png'):  # of an earlier run
        if path.stem.removeprefix('examples_') not in report.examples:
            path.unlink()
    for name, examples in report.examples.items():
        draw_examples(name, examples, folder / f'examples_{name}.png')


def draw_centres(counts: Sequence[Sequence[int]], path: str | Path) -> None:
    """Draw how many kept boxes have their centre in each cell of the picture, and write the PNG.

    Args:
        counts: by row from the top and column.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.8), dpi=110, layout='constrained')
    axes = figure.subplots()
    shown = axes.imshow(np.asarray(counts), cmap='Blues', vmin=0, extent=(0, 1, 1, 0))
    axes.set_title('centres of kept boxes', fontsize=10, loc='left')
    axes.tick_params(labelsize=7)
    figure.colorbar(shown, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    save_figure(figure, path, durable=False)


def draw_examples(name: str, examples: Sequence[AnnotationExample], path: str | Path) -> None:
    """Draw pictures with annotations of one fate, and write the PNG.

    Args:
        name: ``'kept'``, or the reason.
        examples: at least one.
        path: the file.
    """
    cells = [_draw_example(example) for example in examples]
    height = max(len(cell) for cell in cells)
    filled = [np.pad(cell, ((0, height - len(cell)), (0, 0), (0, 0)), constant_values=255) for cell in cells]
    save_png(tile(filled, _COLUMNS, title='kept' if name == 'kept' else f'dropped: {name}'), path)


def _draw_example(example: AnnotationExample) -> np.ndarray:
    image = decode_image(example.data, WHITE)
    height, width = image.shape[:2]
    boxed = [item for item in example.items if item.box is not None]
    boxes = [np.multiply(item.box, (width, height, width, height)).tolist() for item in boxed]
    names = [item.text or item.task for item in boxed]
    scores = [item.score for item in boxed]
    known = None if None in scores else scores
    drawn = draw_detections(image, boxes, names, known) if boxes else image
    lines: list[Line] = []
    captions: Mapping[str, Any] = dict.fromkeys(
        item.text if item.kind == 'text' else item.caption for item in example.items
    )
    lines += [Line(text) for text in captions if text]
    return draw_texts(drawn, lines[:_MOST])
