"""What happens in videos, by a recognizer of fixed classes or from class names in plain text."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import BACKENDS, VideoReader, write_mp4
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.video import PredictionPainter, TimedScores, draw_activation_strip

from .activation import class_activation
from .inputs import choose_classes, free_name, keep_originals, list_inputs
from .setup import get_ready
from .video_inputs import SUFFIXES, VideoPipeline, cut, open_file

Video = str | Path
_FILE = 'videos.json'
_USUAL_FPS = 25.0  # of a drawn video whose file tells none


class VideoInferencer:
    """Recognize what happens in videos with a trained model.

    ::

        inferencer = VideoInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('clips/', window=2.0, out_dir='recognized')

    Args:
        config (str | Path | Config): Of a recognizer of mmaction2, or of a :class:`UniCL` with a video encoder;
            ``test_dataloader`` gives the pipeline with its views.
        checkpoint (str | Path | None): File or URL with all the model's weights; None keeps what ``init_cfg`` loads.
        device (str | None): None takes the GPU where there is one.
        class_names (Sequence[str] | None): Names of the labels of a model with fixed classes; None: those of
            the checkpoint or the config, else their numbers.
        templates (str | Sequence[str] | None): Prompts of free-text classes, ``'imagenet'``, ``'simple'``, ``'none'``
            or strings with one ``{}`` each; None takes the model's.
        batch_size (int): Windows of a video that go through the model together.
        backend (str): Decoder, 'pyav' or 'decord'.

    Raises:
        UsageError: config or checkpoint are missing, or the config has no model or no test pipeline for videos.
        ValueError: the checkpoint does not hold all the model's weights.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None,
        device: str | None = None,
        class_names: Sequence[str] | None = None,
        templates: str | Sequence[str] | None = None,
        batch_size: int = 1,
        backend: str = 'pyav',
    ) -> None:
        if backend not in BACKENDS:
            raise UsageError(f'backend={backend!r} of a video must be one of {", ".join(BACKENDS)}')
        self.templates = templates
        self.batch_size = batch_size
        self.backend = backend
        self.pipeline, self.model, meta, self.device, self.cfg = get_ready(
            config, checkpoint, device, batch_size, VideoPipeline, 'video', default_scope='mmaction'
        )
        self.known_classes = self.pipeline.class_names(meta) if class_names is None else list(class_names)

    def __call__(
        self,
        videos: Video | Sequence[Video],
        classes: str | Sequence[str] | None = None,
        top: int = 5,
        window: float | None = None,
        stride: float | None = None,
        out_dir: str | Path | None = None,
        skip_bad: bool = False,
    ) -> list[dict[str, Any]]:
        """Recognize videos.

        Args:
            videos: Files, folders (their videos, sorted, also of folders inside), or a list of those.
            classes: Names with commas between, or a list. A model that takes free text chooses among these; a model of
                fixed classes reports no others. None: the classes in the model's config, or all of a fixed model.
            top: How many classes are reported, at most.
            window: Seconds; scores are then also given for a window that slides over the video. Each window goes
                through the test pipeline with its views like a video of its own.
            stride: Seconds from one window to the next; None: half a window.
            out_dir: Where videos with the predictions and ``videos.json`` are written; None writes nothing.
            skip_bad: Go on after a video that cannot be read; its result then has ``error`` in place of scores.

        Returns:
            One dict a video, in order: ``file``, ``frames``, ``fps`` (0 where the file tells none), ``labels`` (names,
            the best one first) and ``scores`` (probabilities) of the whole video; ``windows``, where asked for: a list
            of dicts with ``start`` and ``end`` in seconds, ``labels`` and ``scores``; ``video``, the drawn file, where
            one was written.

        Raises:
            UsageError: no videos, wrong numbers, classes that a model of fixed classes does not have, or a video that
                lies in the output folder, where the drawn one could take its place.
            DataError: a video cannot be read, and ``skip_bad`` is off.
        """
        if top < 1 or window is not None and not window > 0 or stride is not None and not stride > 0:
            raise UsageError(f'top={top}, window={window} and stride={stride} must be above 0')
        if stride is not None and (window is None or stride > window):
            raise UsageError(f'stride={stride} must not be more than window={window}, or frames are left out')
        files = list_inputs(videos, SUFFIXES, 'videos')
        if out_dir is not None:
            keep_originals(files, out_dir)
        names, reported = choose_classes(self.model, self.known_classes, classes, self.templates)
        progress, taken = ProgressLog('recognizing videos', len(files)), set()
        results: list[dict[str, Any]] = []
        for number, file in enumerate(files):
            result: dict[str, Any] = {'file': str(file)}
            try:
                reader = open_file(file, self.backend)
                try:
                    result |= {'frames': len(reader), 'fps': round(reader.fps, 3)}
                    whole, windows = self._recognize(reader, names, reported, top, window, stride, progress, number)
                    result |= {key: whole[key] for key in ('labels', 'scores')}
                    if window is not None:
                        result['windows'] = windows
                    if out_dir is not None:
                        result['video'] = free_name(Path(file).stem, '.mp4', taken)
                        colours = names if reported is None else reported
                        self._draw(reader, windows or [whole], colours, Path(out_dir) / result['video'])
                finally:
                    reader.close()
            except DataError as error:
                if not skip_bad:
                    raise
                result = {'file': str(file), 'error': str(error)}
            results.append(result)
            progress.update(len(results))
        if out_dir is not None:
            listed = {'classes': list(names if reported is None else reported), 'window': window, 'stride': stride}
            text = json.dumps({**listed, 'videos': results}, indent=1, ensure_ascii=False)
            write_atomic(Path(out_dir) / _FILE, text + '\n')
        return results

    def draw_activation(
        self,
        video: Video,
        path: str | Path,
        name: str | None = None,
        classes: str | Sequence[str] | None = None,
        stage: int | None = None,
    ) -> str:
        """Write a strip of the frames that the model sees, with where and when it sees a class (PNG).

        The view in the middle of the test pipeline's is shown. What is drawn is gradient-weighted activation, see
        :func:`~florence_mm.apis.activation.class_activation`; colours go from 0 to the largest value of the clip.

        Args:
            video: The file.
            path: The PNG file.
            name: The class; None: the best one of that view.
            classes: As in a call.
            stage: Number of a stage of the backbone; None: the last.

        Returns:
            the name of the class.

        Raises:
            UsageError: there is no such class or stage, or the pipeline gives no images as bytes.
            DataError: the video cannot be read.
        """
        names, _ = choose_classes(self.model, self.known_classes, classes, self.templates)
        if name is not None and name not in names:
            raise UsageError(f'{name!r} is none of the classes; they are {", ".join(names[:20]) or "without names"}')
        reader = open_file(video, self.backend)
        try:
            data, numbers = self.pipeline(next(cut(reader, None, None)))
            fps = reader.fps
        finally:
            reader.close()
        inputs = data['inputs']  # (V, 3, T, H, W)
        if not isinstance(inputs, Tensor) or inputs.ndim != 5 or inputs.dtype != torch.uint8:
            raise UsageError(
                'the test pipeline gives no clips (V, 3, T, H, W) of bytes; end it with FormatShape (NCTHW)'
            )
        # views are crops x clips, the clips of the first crop first
        clips, view = len(numbers), len(inputs) // len(numbers) // 2 * len(numbers) + len(numbers) // 2
        label = None if name is None else names.index(name)
        maps, label = class_activation(self.model, inputs[view : view + 1], data['data_samples'], label, stage)
        frames = inputs[view].permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        times = numbers[view % clips]
        seconds = (times / fps).tolist() if fps and len(times) == len(frames) else None
        shown = _name_of(label, names)
        title = f'{Path(video).name}: {shown}, {"last stage" if stage is None else f"stage {stage}"}'
        save_png(draw_activation_strip(frames, maps, seconds, title), path)
        return shown

    def _recognize(
        self,
        reader: VideoReader,
        names: list[str],
        reported: list[str] | None,
        top: int,
        window: float | None,
        stride: float | None,
        progress: ProgressLog,
        number: int,
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Results of the whole video and of its windows."""
        spans = [*cut(reader, None, None)] + ([*cut(reader, window, stride)] if window is not None else [])
        found = []
        for scores in self._scores(spans):
            span, fps = spans[len(found)], reader.fps or _USUAL_FPS
            if names and len(names) != len(scores):
                raise UsageError(f'there are {len(names)} class names, but the model has {len(scores)} classes')
            keep = [i for i in range(len(scores)) if reported is None or names[i] in reported]
            order = sorted(keep, key=lambda i: -scores[i])[:top]
            found.append(
                {
                    'start': round(span.first / fps, 3),
                    'end': round((span.first + span.count) / fps, 3),
                    'labels': [_name_of(i, names) for i in order],
                    'scores': [round(scores[i], 4) for i in order],
                }
            )
            progress.update(number + len(found) / (len(spans) + 1))
        return found[0], found[1:]

    def _scores(self, spans: Sequence[Any]) -> Iterator[list[float]]:
        """Probabilities of the classes in each stretch."""
        for start in range(0, len(spans), self.batch_size):
            packed = [self.pipeline(span)[0] for span in spans[start : start + self.batch_size]]
            with torch.no_grad():
                samples = self.model.test_step(pseudo_collate(packed))
            for sample in samples:
                yield _probabilities(sample.pred_score.float().cpu()).tolist()

    @staticmethod
    def _draw(reader: VideoReader, found: Sequence[dict], class_names: Sequence[str], path: Path) -> None:
        fps = reader.fps or _USUAL_FPS
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


def _name_of(label: int, names: Sequence[str]) -> str:
    return names[label] if names else str(label)


def _probabilities(scores: Tensor) -> Tensor:
    """``(K,)`` as it is where it is a distribution, else its softmax: heads may average logits over the views."""
    if scores.ndim != 1:
        raise UsageError(
            f"the model gives scores of shape {tuple(scores.shape)} for a video; set average_clips='prob' in its head"
        )
    is_distribution = bool((scores >= 0).all()) and abs(scores.sum().item() - 1) < 1e-3
    return scores if is_distribution else scores.softmax(0)
