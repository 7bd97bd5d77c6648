"""Reading single frames of video files with PyAV; :mod:`.mp4` writes videos.

Frames are numbered from 0 in display order. Frames are ``(H, W, 3)`` uint8 RGB, upright.
"""

import io
import warnings
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from florence_mm.errors import DataError
from florence_mm.moved import moved_names

from .containers import FORMATS, missing_bytes
from .frame_index import FrameIndex, decode_from, frame_rate, index_frames
from .mp4 import encode_mp4, write_mp4
from .orientation import upright

__all__ = ['BACKENDS', 'PyAVReader', 'VideoReader', 'encode_mp4', 'open_video', 'usable_backend', 'write_mp4']


class VideoReader(ABC):
    """Base of video readers: frames by number; ``len()`` is the number of frames.

    Attributes:
        name (str): Name of the file in messages.
        fps (float): Frames per second, the mean if it varies; 0 if the file does not say.

    Args:
        data (bytes): Content of the file.
        name (str): Name of the file in messages.

    Raises:
        DataError: the file is empty, damaged, or has no frames.
    """

    fps: float
    _count: int

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        try:
            if not data:
                raise ValueError('is an empty file')
            self._open(data)
            if not self._count:
                raise ValueError('has no frames')
        except ValueError as error:
            raise self._fault(error) from None

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames, ``(len(indices), H, W, 3)`` uint8 RGB; repeated indices give copies.

        Raises:
            IndexError: there is no such frame.
            DataError: the file is damaged.
        """
        indices = [int(index) for index in indices]
        if not indices or min(indices) < 0 or max(indices) >= self._count:
            raise IndexError(f'the video {self.name} has frames 0 to {self._count - 1}, not all of {indices}')
        try:
            return self._read(indices)
        except ValueError as error:
            raise self._fault(error) from None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode all frames in order, each ``(H, W, 3)`` uint8 RGB, one in memory at a time.

        Raises:
            DataError: the file is damaged.
        """
        try:
            yield from self._iterate()
        except ValueError as error:
            raise self._fault(error) from None

    def _iterate(self) -> Iterator[np.ndarray]:
        """See :meth:`__iter__`; the message of a ValueError is a predicate, such as 'has no frames'."""
        for index in range(self._count):
            yield self._read([index])[0]

    def _fault(self, error: ValueError) -> DataError:
        return DataError(f'the video {self.name} {error}; replace it or remove it')

    @abstractmethod
    def _open(self, data: bytes) -> None:
        """Open the file and set ``_count`` and ``fps``; the message of a ValueError is a predicate."""

    @abstractmethod
    def _read(self, indices: list[int]) -> np.ndarray:
        """See :meth:`read`; the message of a ValueError is a predicate."""

    @abstractmethod
    def close(self) -> None:
        """Free the decoder and the bytes of the file."""


class PyAVReader(VideoReader):
    """Video reader with PyAV, which indexes frames by their packets.

    The packets are read once. This gives the exact number of frames, even if the header states none or a wrong one, and
    the key frames, so that only those frames are decoded on which a requested frame depends. Files whose packets do not
    tell the order of display are decoded as a whole once, see :mod:`.frame_index`.

    Frames are turned upright (:mod:`.orientation`); fields of interlaced frames are not separated, and pixels that are
    not square stay so. Pictures of a cover are no video.
    """

    def _open(self, data: bytes) -> None:
        if missing := missing_bytes(data):
            raise ValueError(f'is cut off: at least {missing} bytes are missing at its end')
        self._reformatter = VideoReformatter()
        try:
            with av.open(io.BytesIO(data), options={'format_whitelist': FORMATS}) as container:
                stream = _video_stream(container)
                self._context = stream.codec_context
                self._context.thread_count = 1  # a data loader has workers for the other cores
                # demuxing ends in an empty packet, and AVI has empty ones where the frame before is repeated
                packets = [packet for packet in container.demux(stream) if packet.size]
                if packets and packets[-1].is_corrupt:
                    raise ValueError(f'is cut off in frame {len(packets) - 1}')
                if lost := _lost_frames(stream, packets):
                    raise ValueError(f'is damaged: {lost} of the frames in its index are not where they should be')
                self._index = index_frames(packets, self._context, container.format.name)
                self.fps = frame_rate(self._index, stream)
        except av.error.ArgumentError:
            raise ValueError(
                'is a song, a picture, a playlist or in another format that is not read as a video'
            ) from None
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be read ({error.strerror})') from None
        self._count = len(self._index.shown)

    def _read(self, indices: list[int]) -> np.ndarray:
        index = self._index
        if index.broken is not None and max(indices) >= index.broken:
            raise ValueError(f'is damaged in frame {index.broken} of {self._count}')
        groups: dict[int, set[int]] = {}  # requested frames by the key frame before them
        for number in set(indices) - index.kept.keys():
            before = bisect_right(index.keys, number)
            groups.setdefault(index.keys[before - 1] if before else 0, set()).add(number)
        decoded = {number: self._to_array(index.kept[number], number) for number in set(indices) & index.kept.keys()}
        try:
            for start, wanted in groups.items():
                self._decode(start, wanted, decoded)
            if lost := set(indices) - decoded.keys():
                # a frame marked as a key frame may depend on earlier ones
                self._decode(0, lost, decoded)
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be decoded ({error.strerror})') from None
        if lost := set(indices) - decoded.keys():
            raise ValueError(f'is damaged in frame {min(lost)} of {self._count}')
        if len({image.shape for image in decoded.values()}) > 1:
            raise ValueError('has frames of different sizes')
        return np.stack([decoded[number] for number in indices])  # (len(indices), H, W, 3)

    def _decode(self, start: int, wanted: set[int], decoded: dict[int, np.ndarray]) -> None:
        """Decode from frame ``start`` (a key frame or 0) until all wanted frames are decoded."""
        positions = {self._index.shown[number]: number for number in wanted}
        for number, frame in self._frames(start, positions):
            if number in wanted and number not in decoded:
                decoded[number] = self._to_array(frame, number)
            if number >= max(wanted):
                return

    def _iterate(self) -> Iterator[np.ndarray]:
        if self._index.kept:
            yield from super()._iterate()
            return
        shape, done = None, 0
        try:
            for number, frame in self._frames(0, None):
                if number < done:
                    continue
                if number > done:
                    break
                image = self._to_array(frame, done)
                shape = shape or image.shape
                if image.shape != shape:
                    raise ValueError('has frames of different sizes')
                done += 1
                yield image
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be decoded ({error.strerror})') from None
        if done < self._count:
            raise ValueError(f'is damaged in frame {done} of {self._count}')

    def _frames(self, start: int, wanted: dict[int, int] | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from frame ``start`` (a key frame or 0) on, see :func:`.frame_index.decode_from`, with numbers."""
        # what comes before the first frame may be needed though it is not shown
        first = self._index.shown[start] if start else 0
        for frame in decode_from(self._context, self._index.packets, first, wanted):
            yield self._index.numbers.get(frame.pts, -1), frame

    def _to_array(self, frame: av.VideoFrame, number: int) -> np.ndarray:
        if frame.is_corrupt:
            # FFmpeg has filled it with the content of earlier frames
            raise ValueError(f'is damaged in frame {number} of {self._count}')
        # one converter for all frames, without threads: starting them takes longer than converting a small frame
        image = self._reformatter.reformat(frame, format='rgb24', threads=1).to_ndarray()
        if not len(frame.side_data):  # asking for what is not there takes as long as converting a small frame
            return image
        matrix = frame.side_data.get('DISPLAYMATRIX')
        return image if matrix is None else upright(image, bytes(matrix))

    def close(self) -> None:
        """See :class:`VideoReader`."""
        self._index = FrameIndex([], [])


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The video stream that the file marks as its default, or else the first; cover pictures are none."""
    streams = container.streams.video
    films = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    if not films:
        raise ValueError(f'has no video stream, only {"sound and a cover picture" if streams else "others"}')
    # as a player does; the others may be previews
    return max(films, key=lambda stream: bool(stream.disposition & Disposition.default))


def _lost_frames(stream: av.video.stream.VideoStream, packets: Sequence[av.Packet]) -> int:
    """Count the packets that an AVI's index has and FFmpeg does not find; it passes over them without a word."""
    if stream.container.format.name != 'avi':
        return 0
    return max(0, sum(entry.size > 0 for entry in stream.index_entries) - len(packets))


BACKENDS: dict[str, type[VideoReader]] = {'pyav': PyAVReader}
#: Backends of earlier releases, and what reads in their place. decord (last release in 2021) gives other frames than
#: asked for, without an error, for open groups of pictures, AVI with B-frames, MPEG-TS and files cut by an edit list.
_RETIRED = {'decord': 'pyav'}

__getattr__ = moved_names(__name__, {'DecordReader': f'{__name__}:PyAVReader'})


def usable_backend(backend: str, owner: str) -> str:
    """Check the name of a backend; the name of one that is retired is replaced, with a warning.

    Args:
        backend (str): The name.
        owner (str): What has the argument ``backend``, for the message.

    Raises:
        ValueError: an unknown backend.
    """
    known = isinstance(backend, str)
    if known and backend in BACKENDS:
        return backend
    if known and backend in _RETIRED:
        warnings.warn(
            f'backend={backend!r} is retired, as it gives other frames than asked for; {_RETIRED[backend]!r} reads in '
            'its place, so leave `backend` out',
            FutureWarning,
            stacklevel=3,
        )
        return _RETIRED[backend]
    raise ValueError(f'backend={backend!r} of {owner} must be one of {", ".join(BACKENDS)}; leave it out')


def open_video(data: bytes, name: str, backend: str = 'pyav') -> VideoReader:
    """Open a video given as bytes.

    Args:
        data (bytes): Content of the file.
        name (str): Name of the file in messages.
        backend (str): A name in ``BACKENDS``.

    Raises:
        DataError: the file is empty, cut off, damaged, or has no frames.
        ValueError: an unknown backend.
    """
    return BACKENDS[usable_backend(backend, 'a video')](data, name)
