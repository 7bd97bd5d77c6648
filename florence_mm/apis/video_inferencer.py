"""Inferencer for video classification, with fixed classes or zero-shot from class names."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import VideoReader, usable_backend, write_mp4
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.utils.numbers import is_finite
from florence_mm.utils.progress import ProgressLog
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.video import PredictionPainter, TimedScores, draw_activation_strip

from .activation import class_activation
from .base import Inferencer, count_of, list_inputs
from .classes import best_classes, choose_classes, class_name
from .inputs import NoInput, ReadInput, free_name
from .results import Output
from .setup import check_count
from .video_inputs import VIDEOS, VideoPipeline, open_file, split_windows

Video = str | Path
_FILE = 'videos.json'
_DEFAULT_FPS = 25.0  # of drawings of videos without frame rate


class VideoInferencer(Inferencer):
    """Classify videos, and windows of time in them, with a trained model.

    ::

        inferencer = VideoInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('clips/', window=2.0, out_dir='recognized')

    Args:
        config (str | Path | Config): Config of a recognizer of mmaction2, or of a :class:`UniCL` with a video encoder;
            the pipeline and its views are those of ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        class_names (Sequence[str] | None): Names of the labels of a model with fixed classes; None: those of the
            checkpoint or config, else numbers.
        templates (str | Sequence[str] | None): Prompt templates of a zero-shot model's classes, ``'imagenet'``,
            ``'simple'``, ``'none'`` or strings with one ``{}`` each; None: the model's.
        batch_size (int): Windows of a video per batch.
        backend (str): Decoder, 'pyav'.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no model or no test pipeline for videos.
        ValueError: the checkpoint lacks weights of the model.
    """

    _kind = VIDEOS
    _pipeline = VideoPipeline
    _scope = 'mmaction'

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        class_names: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 1,
        backend: str = 'pyav',
        precision: str = 'fp32',
    ) -> None:
        self.backend = usable_backend(backend, 'VideoInferencer')
        super().__init__(config, checkpoint, device, batch_size, precision)
        self.templates = templates
        if class_names is not None and isinstance(self.model, ZeroShotModel):
            raise UsageError(
                'class_names are those of a model with fixed classes, and this one is zero-shot; give classes'
            )
        self.known_classes = self.pipeline.class_names(self.meta) if class_names is None else list(class_names)

    def __call__(
        self,
        videos: Video | Iterable[Video],
        classes: str | Sequence[str] | None = None,
        top: int = 5,
        window: float | None = None,
        stride: float | None = None,
        out_dir: str | Path | None = None,
        skip_bad: bool = True,
    ) -> list[dict[str, Any]]:
        """Classify videos.

        Args:
            videos: Files, folders (with subfolders, sorted), globs, URLs, a list of those, or a generator.
            classes: Class names separated by commas, or a list. A zero-shot model chooses among these; of a model with
                fixed classes only these are reported. None: the classes in the zero-shot model's config, or all fixed
                ones.
            top: Most classes reported.
            window: Length in seconds of a window that slides over the video, for which scores are also given. Each
                window is prepared by the test pipeline, with its views, like a separate video.
            stride: Seconds between the starts of windows; None: half a window.
            out_dir: Folder for videos with drawn predictions and ``videos.json``; None writes nothing. Until the end,
                finished results are lines of ``videos.json.part``.
            skip_bad: Continue after a video that cannot be read or classified, whose result has ``error`` instead of
                scores; False raises its error.

        Returns:
            One dict per video, in order: ``file``, ``frames``, ``fps`` (0 if unknown), ``labels`` (names, best first)
            and ``scores`` (probabilities) of the whole video; with ``window`` also ``windows``, a list of dicts with
            ``start`` and ``end`` in seconds, ``labels`` and ``scores``; with ``out_dir`` also ``video``, the name of
            the drawn file. Of a video that failed: ``file`` and ``error``, a sentence.

        Raises:
            UsageError: there are no videos, a number is out of range, a model with fixed classes lacks a class, or a
                video is in the output folder, where the drawn one could overwrite it.
            DataError: a video cannot be read, and ``skip_bad`` is off.
        """
        return list(self.stream(videos, classes, top, window, stride, out_dir, skip_bad))

    def stream(
        self,
        videos: Video | Iterable[Video],
        classes: str | Sequence[str] | None = None,
        top: int = 5,
        window: float | None = None,
        stride: float | None = None,
        out_dir: str | Path | None = None,
        skip_bad: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Classify videos, and yield each result as it is made, for videos without end; see :meth:`__call__`."""
        check_count('top', top)
        _check_seconds('window', window)
        _check_seconds('stride', stride)
        if stride is not None and window is None:
            raise UsageError(f'stride={stride} is the time between two windows; give the length of a window too')
        if stride is not None and stride > window:
            raise UsageError(f'stride={stride} must not be more than window={window}, or frames are left out')
        listed = list_inputs(videos, self._kind)
        names, reported = choose_classes(self.model, self.known_classes, classes, self.templates)
        colours = list(names if reported is None else reported)
        progress, taken = ProgressLog('recognizing videos', count_of(listed)), set()

        def classify(videos: Sequence[ReadInput]) -> list[dict[str, Any]]:
            (video,) = videos
            reader = open_file(video.file, self.backend)
            try:
                found = self._recognize(reader, names, reported, top, window, stride, progress)
                result = {'frames': len(reader), 'fps': round(reader.fps, 3)}
                result |= {key: found[0][key] for key in ('labels', 'scores')}
                if window is not None:
                    result['windows'] = found[1:]
                if out_dir is not None:
                    result['video'] = free_name(video.file, '.mp4', taken)
                    self._draw(reader, found[1:] or found, colours, Path(out_dir) / result['video'])
                return [result]
            finally:
                reader.close()

        out = None
        if out_dir is not None:
            head = {'classes': colours, 'window': window, 'stride': stride}
            out = Output(Path(out_dir) / _FILE, out_dir, head, 'videos')
        return self._stream(listed, classify, progress, skip_bad, out)

    def draw_activation(
        self,
        video: Video,
        path: str | Path,
        name: str | None = None,
        classes: str | Sequence[str] | None = None,
        stage: int | None = None,
    ) -> str:
        """Draw the activation of a class on a strip of the frames that the model sees (PNG).

        The middle view of the test pipeline is drawn with its gradient-weighted activation, see
        :func:`~florence_mm.apis.activation.class_activation`; colours range from 0 to the maximum of the clip.

        Args:
            video: The file.
            path: The PNG file.
            name: Name of the class; None: the predicted class of that view.
            classes: Class names, as for calling the inferencer.
            stage: Index of a stage of the backbone; None: its output.

        Returns:
            the name of the class.

        Raises:
            UsageError: the class or stage does not exist, or the pipeline does not return uint8 clips.
            DataError: the video cannot be read.
        """
        names, _ = choose_classes(self.model, self.known_classes, classes, self.templates)
        if name is not None and name not in names:
            raise UsageError(f'{name!r} is none of the classes; they are {", ".join(names[:20]) or "without names"}')
        reader = open_file(video, self.backend)
        try:
            data, numbers = self.pipeline(next(split_windows(reader, None, None)))
            fps = reader.fps
        finally:
            reader.close()
        inputs = data['inputs']  # (V, 3, T, H, W)
        if not isinstance(inputs, Tensor) or inputs.ndim != 5 or inputs.dtype != torch.uint8:
            raise UsageError(
                'the test pipeline gives no clips (V, 3, T, H, W) of bytes; end it with FormatShape (NCTHW)'
            )
        # views are crops x clips, first all clips of the first crop
        clips, view = len(numbers), len(inputs) // len(numbers) // 2 * len(numbers) + len(numbers) // 2
        label = None if name is None else names.index(name)
        maps, label = class_activation(self.model, inputs[view : view + 1], data['data_samples'], label, stage)
        frames = inputs[view].permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        times = numbers[view % clips]
        seconds = (times / fps).tolist() if fps and len(times) == len(frames) else None
        shown = class_name(label, names)
        title = f'{Path(video).name}: {shown}, {"last stage" if stage is None else f"stage {stage}"}'
        save_png(draw_activation_strip(frames, maps, seconds, title), path)
        return shown

    @property
    def _at_once(self) -> int:
        return 1  # the batches are of the windows of a video

    def _read(self, item: Any) -> None:
        """Leave a video to be read when it is classified, as it does not fit into memory."""
        if isinstance(item, NoInput):
            raise DataError(item.sentence)

    def _recognize(
        self,
        reader: VideoReader,
        names: list[str],
        reported: list[str] | None,
        top: int,
        window: float | None,
        stride: float | None,
        progress: ProgressLog,
    ) -> list[dict[str, Any]]:
        """Classify the whole video, which comes first, and its windows."""
        spans = [*split_windows(reader, None, None)] + (
            [*split_windows(reader, window, stride)] if window is not None else []
        )
        found, before = [], progress.done
        for scores in self._scores(spans):
            span, fps = spans[len(found)], reader.fps or _DEFAULT_FPS
            times = {
                'start': round(span.first / fps, 3),
                'end': round((span.first + span.count) / fps, 3),
            }
            found.append(times | best_classes(scores, names, reported, top))
            progress.update(before + len(found) / (len(spans) + 1))
        return found

    def _scores(self, spans: Sequence[Any]) -> Iterator[list[float]]:
        """Yield the probabilities of the classes for each range of frames."""
        for start in range(0, len(spans), self.batch_size):
            packed = [self.pipeline(span)[0] for span in spans[start : start + self.batch_size]]
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate(packed))
            for sample in samples:
                yield _probabilities(sample.pred_score.float().cpu()).tolist()

    @staticmethod
    def _draw(reader: VideoReader, found: Sequence[dict], class_names: Sequence[str], path: Path) -> None:
        fps = reader.fps or _DEFAULT_FPS
        predictions = [TimedScores(f['start'], f['end'], f['labels'], f['scores']) for f in found]
        progress = ProgressLog(f'drawing {path}', len(reader))

        def frames() -> Iterator[Any]:
            painter = None
            for index, frame in enumerate(reader):
                if painter is None:
                    painter = PredictionPainter(frame.shape[:2], predictions, len(reader) / fps, class_names)
                progress.update(index)
                yield painter(frame, index / fps)

        write_mp4(path, frames(), fps)


def _check_seconds(name: str, value: float | None) -> None:
    if value is not None and not (is_finite(value) and value > 0):
        raise UsageError(f'{name} is {value!r}; give seconds, a number above 0')


def _probabilities(scores: Tensor) -> Tensor:
    """Return ``(K,)`` unchanged if it is a distribution, else its softmax, as heads may average logits of views."""
    if scores.ndim != 1:
        raise UsageError(
            f"the model gives scores of shape {tuple(scores.shape)} for a video; set average_clips='prob' in its head"
        )
    if not torch.isfinite(scores).all():
        raise ValueError('the model gives scores that are not finite numbers; check its weights')
    is_distribution = bool((scores >= 0).all()) and abs(scores.sum().item() - 1) < 1e-3
    return scores if is_distribution else scores.softmax(0)
