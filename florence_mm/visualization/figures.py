"""Writing of matplotlib's figures, the same bytes for the same content."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from florence_mm.utils.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: 'Figure', path: str | Path, durable: bool = True) -> None:
    """Write a figure as PNG, atomically, without a display; the folder is created.

    Args:
        figure: made by itself, not by ``pyplot``, which would keep it.
        path: the file.
        durable: see :func:`~florence_mm.utils.files.replacing`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    # no version in the file, so that equal figures give equal files
    FigureCanvasAgg(figure).print_png(buffer, metadata={'Software': None})
    write_atomic(path, buffer.getvalue(), durable)
