"""Inputs of video inferencers: video files, windows of time, and videos prepared by a config's pipeline."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose

from florence_mm.datasets.transforms.video import VideoDecode
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import VideoReader, open_video
from florence_mm.moved import moved_names
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.reading import read_bytes

from .base import InferencePipeline
from .inputs import InputKind, is_web
from .setup import TestData, transform_name

_NAMES = '3gp asf avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv'
SUFFIXES = tuple(f'.{name}' for name in _NAMES.split())
VIDEOS = InputKind('video', SUFFIXES)
#: Largest video at a URL, which is read into memory.
_MAX_WEB_BYTES = 2**32

__getattr__ = moved_names(__name__, {'cut': f'{__name__}:split_windows'})


def open_file(file: str | Path, backend: str) -> VideoReader:
    """Open a video file, or one at a URL.

    Raises:
        DataError: it is missing, no ordinary file, empty, cut off, damaged, or not a video.
    """
    limit = _MAX_WEB_BYTES if is_web(file) else None
    return open_video(read_bytes(file, what='video', limit=limit), str(file), backend)


class Span:
    """A range of frames of a video, with the interface of a video reader for :class:`VideoDecode`.

    Args:
        reader: the reader of the whole video, which stays open.
        first: index of the first frame.
        count: number of frames.
    """

    def __init__(self, reader: VideoReader, first: int, count: int) -> None:
        self.reader = reader
        self.first = first
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Any) -> np.ndarray:
        """Read frames ``(n, H, W, 3)`` by their indices relative to ``first``."""
        return self.reader.read([self.first + int(index) for index in indices])

    def close(self) -> None:
        """Do nothing, as the whole video is closed by the code that opened it."""


def split_windows(reader: VideoReader, window: float | None, stride: float | None) -> Iterator[Span]:
    """Yield windows of time of a video, one every ``stride`` seconds, and one at the end that covers the last frames.

    Args:
        reader: the video.
        window: length in seconds; None, or longer than the video: the whole video.
        stride: seconds between the starts of windows; None: half a window.

    Raises:
        DataError: the file has no frame rate.
    """
    if window is None:
        yield Span(reader, 0, len(reader))
        return
    if not reader.fps:
        raise DataError(f'the video {reader.name} does not tell its frame rate; leave `window` out')
    count = min(max(1, round(window * reader.fps)), len(reader))
    step = max(1, round((window / 2 if stride is None else stride) * reader.fps))
    last = len(reader) - count
    for first in range(0, last, step):
        yield Span(reader, first, count)
    yield Span(reader, last, count)


class VideoPipeline(TestData):
    """Test pipeline of a data set's config for opened videos.

    The transforms that open and decode a video are replaced by ours, which give the same frames.

    Args:
        dataset: config of the test data set, which may be wrapped.

    Raises:
        UsageError: there is no pipeline, or it does not read video files.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        super().__init__(dataset, 'video')
        names = [transform_name(t) for t in self.pipeline]
        opens = [i for i, name in enumerate(names) if name.endswith('Init')]
        decodes = [i for i, name in enumerate(names) if name.endswith('Decode')]
        if not opens or not decodes or opens[0] > decodes[0]:
            raise UsageError(
                f'the test pipeline ({", ".join(names)}) has no steps that open and decode a video file, such as '
                'VideoInit and VideoDecode; use a config for videos'
            )
        self.decode = VideoDecode()
        before = [t for i, t in enumerate(self.pipeline[: decodes[0]]) if i != opens[0]]
        self.sample = Compose([TRANSFORMS.build(t) for t in before])
        self.prepare = Compose([TRANSFORMS.build(t) for t in self.pipeline[decodes[0] + 1 :]])

    def __call__(self, span: Span) -> tuple[dict[str, Any], np.ndarray]:
        """Apply the pipeline; returns the input of the model's data preprocessor, and frame indices ``(num_clips, T)``.

        Raises:
            DataError: a frame is damaged.
        """
        name = span.reader.name
        data = {'filename': name, 'img_path': name, 'start_index': 0, 'modality': 'RGB'}
        # packing for retrieval needs a text, which no model uses here
        data |= {'text': 'a video', 'total_frames': len(span), 'avg_fps': span.reader.fps, 'video_reader': span}
        data = self.decode(self.sample(data))
        numbers = span.first + np.asarray(data['frame_inds']).reshape(data.get('num_clips', 1), -1)
        return self.prepare(data), numbers


def any_pipeline(dataset: Mapping[str, Any]) -> InferencePipeline | VideoPipeline:
    """Make the test pipeline of a data set's config: that for videos if it decodes videos, else that for images.

    Args:
        dataset: config of the test data set, which may be wrapped.

    Raises:
        UsageError: there is no pipeline.
    """
    decodes = any(transform_name(step).endswith('Decode') for step in TestData(dataset, 'input').pipeline)
    return VideoPipeline(dataset) if decodes else InferencePipeline(dataset)


def middle_frame(file: str | Path, backend: str = 'pyav') -> np.ndarray:
    """Read the frame in the middle of a video, ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: the video cannot be read.
    """
    reader = open_file(file, backend)
    try:
        return np.asarray(reader.read([len(reader) // 2])[0])
    finally:
        reader.close()
