"""Reading single frames of video files with PyAV or decord; :mod:`.mp4` writes videos.

Frames are numbered from 0 in display order. Frames are ``(H, W, 3)`` uint8 RGB.
"""

import io
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from florence_mm.errors import DataError

from .mp4 import encode_mp4, write_mp4

__all__ = ['BACKENDS', 'DecordReader', 'PyAVReader', 'VideoReader', 'encode_mp4', 'open_video', 'write_mp4']


class VideoReader(ABC):
    """Base of video readers: frames by number; ``len()`` is the number of frames.

    Attributes:
        name (str): Name of the file in messages.
        fps (float): Frames per second; 0 if the file does not say.

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

    The packets are read once without decoding. This gives the exact number of frames, even if the header states none or
    a wrong one, and the key frames, so that only those frames are decoded on which a requested frame depends.
    """

    def _open(self, data: bytes) -> None:
        try:
            self._data = data
            self._container = av.open(io.BytesIO(data))
            if not self._container.streams.video:
                raise ValueError('has no video stream, only others')
            self._stream = self._first_stream()
            self._reformatter = VideoReformatter()
            # demuxing ends in an empty packet
            packets = [
                (packet.pts, packet.is_keyframe, packet.is_corrupt)
                for packet in self._container.demux(self._stream)
                if packet.size and not packet.is_discard
            ]
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be read ({error.strerror})') from None
        if packets and packets[-1][2]:
            raise ValueError(f'is cut off in frame {len(packets) - 1}')
        self._count = len(packets)
        self.fps = float(self._stream.average_rate or 0)
        self._times = sorted({pts for pts, _, _ in packets if pts is not None})
        if len(self._times) < self._count:
            # a raw stream has no timestamps; frames are then counted from the start
            self._times = []
        self._numbers = {time: number for number, time in enumerate(self._times)}
        # without timestamps only frame 0 is known to be a key frame
        self._keys = sorted(self._numbers[pts] for pts, key, _ in packets if key) if self._times else []

    def _read(self, indices: list[int]) -> np.ndarray:
        groups: dict[int, set[int]] = {}  # requested frames by the key frame before them
        for index in indices:
            before = bisect_right(self._keys, index)
            groups.setdefault(self._keys[before - 1] if before else 0, set()).add(index)
        decoded: dict[int, np.ndarray] = {}
        try:
            for start, wanted in groups.items():
                self._decode(start, wanted, decoded)
            lost = set(indices) - set(decoded)
            if lost and self._times:
                # some formats seek to a later key frame than requested
                self._decode(0, lost, decoded)
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be decoded ({error.strerror})') from None
        lost = set(indices) - set(decoded)
        if lost:
            raise ValueError(f'is damaged in frame {min(lost)} of {self._count}')
        if len({image.shape for image in decoded.values()}) > 1:
            raise ValueError('has frames of different sizes')
        return np.stack([decoded[index] for index in indices])  # (len(indices), H, W, 3)

    def _decode(self, start: int, wanted: set[int], decoded: dict[int, np.ndarray]) -> None:
        """Decode from frame ``start`` (a key frame or 0) until all wanted frames are decoded."""
        self._seek(start)
        for count, frame in enumerate(self._frames({self._times[i] for i in wanted} if self._times else None)):
            number = self._numbers.get(frame.pts, -1) if self._times else count
            if number in wanted and number not in decoded:
                decoded[number] = self._to_array(frame, number)
            if number >= max(wanted):
                return

    def _iterate(self) -> Iterator[np.ndarray]:
        self._seek(0)
        shape, done = None, 0
        try:
            for frame in self._frames(None):
                number = self._numbers.get(frame.pts, -1) if self._times else done
                if number < done:
                    continue
                if number > done or done == self._count:
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

    def _to_array(self, frame: av.VideoFrame, number: int) -> np.ndarray:
        if frame.is_corrupt:
            # FFmpeg has filled it with the content of earlier frames
            raise ValueError(f'is damaged in frame {number} of {self._count}')
        # one converter for all frames, without threads: starting them takes longer than converting a small frame
        return self._reformatter.reformat(frame, format='rgb24', threads=1).to_ndarray()

    def _seek(self, start: int) -> None:
        """Seek to frame ``start``, a key frame or 0."""
        if self._times:
            time = self._times[start]
            self._container.seek(time if start else min(time, 0), stream=self._stream)
        else:
            # a stream without timestamps cannot seek
            self._container.close()
            self._container = av.open(io.BytesIO(self._data))
            self._stream = self._first_stream()

    def _first_stream(self) -> av.video.stream.VideoStream:
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = 1  # a data loader has workers for the other cores
        return stream

    def _frames(self, times: set[int] | None) -> Iterator[av.VideoFrame]:
        """Decode frames from here on; frames that no other depends on are skipped unless their time is in ``times``."""
        context = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            context.skip_frame = 'DEFAULT' if times is None or packet.pts in times or not packet.size else 'NONREF'
            yield from packet.decode()

    def close(self) -> None:
        """See :class:`VideoReader`."""
        self._container.close()
        self._data = b''


class DecordReader(VideoReader):
    """Video reader with decord, the default of mmaction2."""

    def _open(self, data: bytes) -> None:
        import decord

        self._errors = (decord.DECORDError, IndexError, RuntimeError)
        try:
            # decord prints the content of a file that it cannot open, so PyAV checks it first, which takes as long as
            # opening
            if not _is_whole_mp4(data):
                with av.open(io.BytesIO(data)) as container:
                    if not container.streams.video:
                        raise ValueError('has no video stream, only others')
            self._reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
            self._count = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        except av.error.FFmpegError as error:
            raise ValueError(f'cannot be read ({error.strerror})') from None
        except self._errors as error:
            raise ValueError(f'cannot be read ({_reason(error)})') from None

    def _read(self, indices: list[int]) -> np.ndarray:
        try:
            return self._reader.get_batch(indices).asnumpy()
        except self._errors as error:
            raise ValueError(f'cannot be decoded ({_reason(error)})') from None

    def close(self) -> None:
        """See :class:`VideoReader`."""
        self._reader = None


BACKENDS: dict[str, type[VideoReader]] = {'pyav': PyAVReader, 'decord': DecordReader}


def open_video(data: bytes, name: str, backend: str = 'pyav') -> VideoReader:
    """Open a video given as bytes.

    Args:
        data (bytes): Content of the file.
        name (str): Name of the file in messages.
        backend (str): 'pyav' or 'decord'.

    Raises:
        DataError: the file is empty, damaged, or has no frames.
        ValueError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f'backend={backend!r} of a video must be one of {", ".join(BACKENDS)}')
    return BACKENDS[backend](data, name)


def _is_whole_mp4(data: bytes) -> bool:
    """Whether the file is a complete mp4: boxes (ISO/IEC 14496-12, section 4.2) up to its end, and a video track."""
    boxes, at = {}, 0
    while at + 16 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], 'big'), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], 'big')
        size = size or len(data) - at
        if size < 8:
            return False
        boxes[kind] = (at, at + size)
        at += size
    tracks = boxes.get(b'moov', (0, 0))
    return at == len(data) and {b'ftyp', b'mdat'} <= boxes.keys() and data.find(b'vide', *tracks) >= 0


def _reason(error: Exception) -> str:
    """The message of decord in one line, without the time and its source location."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r'^\[[\d:]+\] \S+ ', '', lines[0].rsplit('Thread worker: ', 1)[-1]).rstrip('. ')
