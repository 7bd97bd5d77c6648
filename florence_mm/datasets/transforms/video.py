"""Reading videos in two steps, between which mmaction2's samplers choose the frames."""

import os

import numpy as np
from mmcv.transforms import BaseTransform

from florence_mm.datasets.arguments import require, require_backend
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import open_video, usable_backend
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.reading import read_bytes


@TRANSFORMS.register_module()
class VideoInit(BaseTransform):
    """Open the video ``filename`` (or ``img_path``, as a manifest's rows have it) without decoding a frame.

    Adds ``video_reader``, ``total_frames`` and ``avg_fps``, and ``start_index=0`` and ``modality='RGB'`` if the data
    set has not. Followed by a sampler such as ``mmaction.SampleFrames`` and then :class:`VideoDecode`.

    If a video is shorter than a clip, ``mmaction.SampleFrames`` starts again from its first frame
    (``out_of_bound_opt='loop'``) or repeats its last (``'repeat_last'``).

    Args:
        backend (str): Decoder, 'pyav'.
        min_frames (int): A video with fewer frames is an error.
        backend_args (dict | None): File backend, see :func:`mmengine.fileio.get`. None: local files and URLs, see
            :func:`florence_mm.utils.reading.read_bytes`.

    Raises:
        DataError: the file is missing, empty, damaged, not a video, or has fewer frames than ``min_frames``.
    """

    def __init__(self, backend: str = 'pyav', min_frames: int = 1, backend_args: dict | None = None) -> None:
        require('min_frames', min_frames, is_whole(min_frames) and min_frames >= 1, 'a whole number, at least 1')
        require_backend(backend_args)
        self.backend = usable_backend(backend, 'VideoInit')
        self.min_frames = min_frames
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the keys above to ``results``."""
        path = results.get('filename', results.get('img_path'))
        source = f'{results["source"]}: ' if 'source' in results else ''
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise DataError(f'{source}the path of the video (filename or img_path) is {path!r}; expected a file')
        data = read_bytes(path, self.backend_args, source, 'video')
        try:
            reader = open_video(data, path, self.backend)
        except DataError as error:
            raise DataError(f'{source}{error}') from None
        if len(reader) < self.min_frames:
            raise DataError(
                f'{source}the video {path} has {len(reader)} frames, fewer than min_frames={self.min_frames}; '
                'remove it or lower min_frames'
            )
        results['video_reader'] = reader
        results['total_frames'] = len(reader)
        results['avg_fps'] = reader.fps
        results.setdefault('start_index', 0)
        results.setdefault('modality', 'RGB')
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(backend={self.backend!r}, min_frames={self.min_frames}, '
            f'backend_args={self.backend_args})'
        )


@TRANSFORMS.register_module()
class VideoDecode(BaseTransform):
    """Decode the frames ``frame_inds`` of ``video_reader`` into ``imgs``, and close the video.

    ``imgs`` is a list of ``(H, W, 3)`` uint8 **RGB** that share no memory, in the order of ``frame_inds``;
    ``original_shape`` and ``img_shape`` are ``(H, W)``.

    Raises:
        DataError: a frame cannot be decoded.
        UsageError: no transform before it has opened a video or chosen frames, or there are no such frames.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``video_reader`` by the keys above."""
        if 'video_reader' not in results or 'frame_inds' not in results:
            raise UsageError(
                'VideoDecode finds no opened video and frames to decode; put VideoInit and then a sampler, such as '
                'mmaction.SampleFrames, before it'
            )
        reader = results.pop('video_reader')
        results['frame_inds'] = np.ravel(results['frame_inds'])
        try:
            frames = reader.read(results['frame_inds'])  # (num_clips * clip_len, H, W, 3)
        except DataError as error:
            source = f'{results["source"]}: ' if 'source' in results else ''
            raise DataError(f'{source}{error}') from None
        except IndexError as error:
            raise UsageError(f'{error}; check the sampler, and that `start_index` is 0') from None
        finally:
            reader.close()
        results['imgs'] = list(frames)
        results['original_shape'] = results['img_shape'] = frames.shape[1:3]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
