"""Pictures of a CapFilt report: probabilities of matches, and examples of kept and rejected texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from florence_mm.curation.capfilt_report import Example, TextReport
from florence_mm.formats.image import decode_image

from .canvas import save_png, tile
from .curation import draw_histograms
from .texts import Line, draw_texts

_COLUMNS = 4


def draw_text_report(report: TextReport, folder: str | Path) -> None:
    """Draw ``histograms.png`` and, if there are examples, ``examples.png``.

    Args:
        report: of a run of CapFilt.
        folder: for the files.
    """
    folder = Path(folder)
    draw_histograms(report.content['histograms'], folder / 'histograms.png')
    (folder / 'examples.png').unlink(missing_ok=True)  # of an earlier run
    if report.examples:
        draw_examples(report.examples, folder / 'examples.png')


def draw_examples(examples: Mapping[str, Sequence[Example]], path: str | Path) -> None:
    """Draw pictures with their texts, each with its source and probability, kept ones marked, and write the PNG.

    Args:
        examples: pictures by what became of their texts; at least one.
        path: the file.
    """
    cells = [_draw_example(kind, example) for kind, found in examples.items() for example in found]
    save_png(np.concatenate([_draw_row(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)]), path)


def _draw_row(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Tile a row, as high as its highest cell and as wide as a full one."""
    blank = np.full((max(map(len, cells)), cells[0].shape[1], 3), 255, np.uint8)
    filled = [np.concatenate([cell, blank[len(cell) :]]) for cell in cells]
    return tile(filled + [blank] * (_COLUMNS - len(cells)), _COLUMNS)


def _draw_example(kind: str, example: Example) -> np.ndarray:
    lines = [Line(kind, bold=True)]
    lines += [Line(f'{source} {match:.2f}: {text}', right=kept) for source, text, match, kept in example.texts]
    return draw_texts(decode_image(example.data), lines)
