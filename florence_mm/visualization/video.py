"""Drawing of predictions on videos, and strips of frames with activation maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import FAINT, INK, PAPER, SHADE, fit_image, fit_names, font, tile
from .detections import class_colour

LEAST_SIDE = 480  # a smaller video is enlarged by an integer factor
_LEAST_WIDTH = 320  # least width in which names and scores fit


@dataclass(frozen=True)
class TimedScores:
    """Predicted classes of a time interval.

    Attributes:
        start, end: interval in seconds.
        names: best classes, the best one first.
        scores: their scores, from 0 to 1.
    """

    start: float
    end: float
    names: Sequence[str]
    scores: Sequence[float]


class PredictionPainter:
    """Draw a panel with the current predictions below each frame of a video.

    The panel shows the time, the best classes with bars and scores, and a timeline in the colours of the best class at
    each time. The interval whose middle is nearest to the current time is shown. All frames get the same even size, as
    mp4 needs it.

    Args:
        size: height and width of the frames.
        predictions: predictions of one or several intervals.
        duration: duration of the video in seconds.
        class_names: all classes in their order, which determines the colours; None: the names in order of occurrence.
        rows: number of classes shown; None: that of the longest prediction.

    Raises:
        ValueError: there are no predictions, or their names and scores differ in number.
    """

    def __init__(
        self,
        size: tuple[int, int],
        predictions: Sequence[TimedScores],
        duration: float,
        class_names: Sequence[str] | None = None,
        rows: int | None = None,
    ) -> None:
        if not predictions or any(len(p.names) != len(p.scores) or not len(p.names) for p in predictions):
            raise ValueError('predictions to draw need at least one stretch of time with as many scores as names')
        height, width = size
        factor = -(-LEAST_SIDE // max(size)) if max(size) < LEAST_SIDE else 1
        self.predictions = sorted(predictions, key=lambda p: p.start)
        self.duration = max(duration, 1e-6)
        self.class_names = list(class_names or dict.fromkeys(name for p in predictions for name in p.names))
        self.rows = rows or max(len(p.names) for p in predictions)
        self.width = max(factor * width, _LEAST_WIDTH) // 2 * 2
        self.letters = min(max(13, round(self.width / 34)), 64)
        self.line = round(1.7 * self.letters)
        self.panel = ((self.rows + 1) * self.line + 2 * self.letters) // 2 * 2
        self.height = factor * height // 2 * 2
        self._middles = np.array([(p.start + p.end) / 2 for p in self.predictions])
        self._panels: dict[int, Image.Image] = {}

    def __call__(self, frame: np.ndarray, second: float) -> np.ndarray:
        """Draw the predictions at ``second`` below a frame ``(H, W, 3)`` uint8 RGB; returns ``(H', W', 3)``."""
        canvas = Image.new('RGB', (self.width, self.height + self.panel), PAPER)
        canvas.paste(Image.fromarray(fit_image(frame, self.height, self.width)))
        index = int(np.abs(self._middles - second).argmin())
        if index not in self._panels:
            self._panels = {index: self._draw_panel(self.predictions[index])}  # only neighbouring frames need it again
        canvas.paste(self._panels[index], (0, self.height))
        draw, face, margin = ImageDraw.Draw(canvas), font(self.letters), self.letters // 2
        text = f'{second:.1f} of {self.duration:.1f} s'
        draw.text((margin, self.height + margin // 2), text, font=face, fill=INK)
        x = round((self.width - 2 * margin - 1) * min(second / self.duration, 1)) + margin
        top = self.height + self.panel - self.letters - margin
        draw.rectangle((x - 1, top - 3, x + 1, top + self.letters + 2), fill=INK, outline=PAPER)
        return np.array(canvas)

    def _draw_panel(self, prediction: TimedScores) -> Image.Image:
        """The panel without the current time."""
        panel = Image.new('RGB', (self.width, self.panel), PAPER)
        draw, face, margin = ImageDraw.Draw(panel), font(self.letters), self.letters // 2
        whole = len(self.predictions) == 1
        text = 'whole clip' if whole else f'from {prediction.start:.1f} to {prediction.end:.1f} s'
        draw.text((self.width - margin - face.getlength(text), margin // 2), text, font=face, fill=FAINT)
        left, right = round(0.42 * self.width), self.width - margin - round(face.getlength('0.00')) - margin
        shown = fit_names([*self.class_names, *prediction.names], font(self.letters, bold=True), left - 2 * margin)
        for row, (name, score) in enumerate(zip(prediction.names, prediction.scores, strict=True)):
            top = (row + 1) * self.line
            name_face, colour = font(self.letters, bold=row == 0), INK if row == 0 else FAINT
            draw.text((margin, top), shown[name], font=name_face, fill=colour)
            draw.rectangle((left, top + 2, right - 1, top + self.letters), fill=SHADE)
            filled = round((right - left) * min(max(score, 0.0), 1.0)) if score == score else 0
            if filled:
                bar = class_colour(name, self.class_names)
                draw.rectangle((left, top + 2, left + filled - 1, top + self.letters), fill=bar)
            draw.text((right + margin, top), f'{score:.2f}', font=face, fill=colour)
        self._draw_timeline(draw)
        return panel

    def _draw_timeline(self, draw: ImageDraw.ImageDraw) -> None:
        """A timeline of the video in the colour of the best class at each time."""
        margin = self.letters // 2
        top, length = self.panel - self.letters - margin, self.width - 2 * margin
        seconds = (np.arange(length) + 0.5) * self.duration / length
        nearest = np.abs(self._middles - seconds[:, None]).argmin(1)
        for x, index in enumerate(nearest.tolist()):
            colour = class_colour(self.predictions[index].names[0], self.class_names)
            draw.line((margin + x, top, margin + x, top + self.letters - 1), fill=colour)


def overlay_map(frames: np.ndarray, maps: Tensor) -> np.ndarray:
    """Overlay an activation map as a heat map on grey frames, from dark violet (0) to yellow (its maximum).

    Args:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        maps: ``(t, h, w)``, at least 0; resized to the frames (trilinear) and divided by their maximum over all frames,
            so that frames are comparable.

    Returns:
        ``(T, H, W, 3)`` uint8 RGB.
    """
    import matplotlib

    resized = F.interpolate(maps.float()[None, None], size=frames.shape[:3], mode='trilinear', align_corners=False)
    scaled = (resized[0, 0] / maps.max().clamp(min=1e-12)).clamp(0, 1).numpy()  # (T, H, W)
    colours = matplotlib.colormaps['plasma'](scaled)[..., :3]  # (T, H, W, 3), 0 to 1
    grey = (frames @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    return np.rint(255 * (0.45 * grey + 0.55 * colours)).astype(np.uint8)


def draw_activation_strip(
    frames: np.ndarray,
    maps: Tensor,
    seconds: Sequence[float] | None = None,
    title: str | None = None,
    columns: int = 8,
) -> np.ndarray:
    """Draw a strip of frames: each frame, below it the frame with its activation map, and its time.

    Args:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        maps: ``(t, h, w)``, at least 0; see :func:`overlay_map`.
        seconds: time of each of the T frames; None: frame numbers are written.
        title: the title.
        columns: frames per row.

    Returns:
        ``(H', W', 3)`` uint8 RGB.

    Raises:
        ValueError: shapes do not fit, or the map has negative or non-finite values.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f'frames have shape {frames.shape} and type {frames.dtype}; expected (T, H, W, 3) uint8')
    if maps.ndim != 3 or not torch.isfinite(maps).all() or (maps < 0).any():
        raise ValueError(f'a map of shape {tuple(maps.shape)} must be (t, h, w) with finite values from 0')
    if seconds is not None and len(seconds) != len(frames):
        raise ValueError(f'{len(seconds)} times for {len(frames)} frames; the numbers must agree')
    height, width = frames.shape[1:3]
    factor = 160 / max(height, width)
    height, width = max(1, round(factor * height)), max(64, round(factor * width))
    face, cells = font(13), []
    for i, pair in enumerate(zip(frames, overlay_map(frames, maps), strict=True)):
        cell = Image.new('RGB', (width, 2 * height + 22), PAPER)
        for row, image in enumerate(pair):
            cell.paste(Image.fromarray(fit_image(image, height, width)), (0, row * (height + 2)))
        text = f'frame {i}' if seconds is None else f'{seconds[i]:.2f} s'
        ImageDraw.Draw(cell).text((2, 2 * height + 5), text, font=face, fill=INK)
        cells.append(np.array(cell))
    return tile(cells, columns, gap=6, title=title)
