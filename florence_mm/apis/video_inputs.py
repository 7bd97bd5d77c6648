"""From a user's videos to what a video model's config expects."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose

from florence_mm.datasets.transforms.video import VideoDecode
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import VideoReader, open_video
from florence_mm.registry import TRANSFORMS

from .setup import TestData, transform_name

SUFFIXES = ('.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ts', '.webm', '.wmv')


def open_file(file: str | Path, backend: str) -> VideoReader:
    """A video file.

    Raises:
        DataError: it is missing, empty, damaged, or no video.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(
            f'the video {file} cannot be read ({error.strerror or type(error).__name__}); check the path'
        ) from None
    return open_video(data, str(file), backend)


class Span:
    """Some frames of a video on their own; what :class:`VideoDecode` reads.

    Args:
        reader: the whole video, which stays open.
        first: number of the first frame.
        count: how many frames.
    """

    def __init__(self, reader: VideoReader, first: int, count: int) -> None:
        self.reader = reader
        self.first = first
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Any) -> np.ndarray:
        """Frames ``(n, H, W, 3)`` by their numbers from ``first`` on."""
        return self.reader.read([self.first + int(index) for index in indices])

    def close(self) -> None:
        """The whole video is closed by who opened it."""


def cut(reader: VideoReader, window: float | None, stride: float | None) -> Iterator[Span]:
    """The windows of time of a video: one each ``stride`` seconds, and one at the end so that no frame is left out.

    Args:
        reader: the video.
        window: seconds; None, or more than the video has: the whole.
        stride: seconds from the start of one to that of the next; None: half a window.

    Raises:
        DataError: the file does not tell its frame rate.
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
    """The test pipeline of a data set's config, fed with opened videos.

    The steps that open and decode a video are replaced by ours, which give the same frames.

    Args:
        dataset: config of the test data; wrappers are gone through.

    Raises:
        UsageError: there is no pipeline, or it reads no video files.
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
        """Frames as the model's data preprocessor takes them, and their numbers ``(num_clips, T)`` in the video.

        Raises:
            DataError: a frame is damaged.
        """
        name = span.reader.name
        data = {'filename': name, 'img_path': name, 'start_index': 0, 'modality': 'RGB'}
        # packing for retrieval wants a text; no model looks at it here
        data |= {'text': 'a video', 'total_frames': len(span), 'avg_fps': span.reader.fps, 'video_reader': span}
        data = self.decode(self.sample(data))
        numbers = span.first + np.asarray(data['frame_inds']).reshape(data.get('num_clips', 1), -1)
        return self.prepare(data), numbers
