"""Writing mp4 files; frames are ``(H, W, 3)`` uint8 RGB."""

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from florence_mm.utils.files import replacing


def encode_mp4(frames: Sequence[np.ndarray] | np.ndarray, fps: int = 8) -> bytes:
    """Encode frames as the bytes of an mp4 file.

    The codec is H.264, lossless after the conversion to YUV 4:2:0, so that a decoded frame does not depend on its
    neighbours. If FFmpeg was built without x264 it is MPEG-4 part 2 at its best quality, for the same reason with key
    frames only. One thread encodes and no date is written: equal frames give equal bytes from equal versions.

    Args:
        frames (Sequence[np.ndarray]): ``(T, H, W, 3)`` uint8 RGB, height and width even.
        fps (int): Frames per second.

    Raises:
        ValueError: ``frames`` has another shape or type.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f'frames have shape {frames.shape} and type {frames.dtype}; expected (T, H, W, 3) uint8')
    buffer = io.BytesIO()
    _encode(buffer, frames, fps, {'qp': '0', 'preset': 'veryfast'}, {'qmin': '1', 'qmax': '1', 'g': '1'})
    return buffer.getvalue()


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames one by one to an mp4 file for viewing: H.264 of good quality, without sound.

    The file appears once it is complete; its folder is created.

    Args:
        path (str | Path): Ends in ``.mp4``.
        frames (Iterable[np.ndarray]): Each ``(H, W, 3)`` uint8 RGB, all of one size, height and width even.
        fps (float): Frames per second.

    Raises:
        ValueError: ``path`` does not end in .mp4, there are no frames, or a frame has another shape.
    """
    path = Path(path)
    if path.suffix.lower() != '.mp4':
        raise ValueError(f'{path} must end in .mp4')
    rate = Fraction(fps).limit_denominator(1001)  # 30000 / 1001 and the like are exact
    with replacing(path) as temporary:
        _encode(str(temporary), frames, rate, {'crf': '18', 'preset': 'veryfast'}, {'qmin': '2', 'qmax': '4'})


def _encode(
    target: io.BytesIO | str, frames: Iterable[np.ndarray], fps: int | Fraction, x264: dict, mpeg4: dict
) -> None:
    """Encode frames into an mp4 with x264, or with MPEG-4 if FFmpeg lacks x264; each has its own options."""
    codec, options = ('libx264', x264) if 'libx264' in av.codecs_available else ('mpeg4', mpeg4)
    stream = shape = None
    with av.open(target, 'w', format='mp4', options={'fflags': '+bitexact'}) as container:
        for frame in frames:
            if stream is None:
                shape = height, width, _ = frame.shape
                if height % 2 or width % 2:
                    raise ValueError(
                        f'frames of {width}x{height} pixels cannot be written as mp4; width and height must be even'
                    )
                stream = container.add_stream(codec, rate=fps, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
                stream.codec_context.thread_count = 1
            if frame.shape != shape:
                raise ValueError(f'frames of the shapes {shape} and {frame.shape} cannot be written as one mp4')
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        if stream is None:
            raise ValueError('an mp4 of no frames cannot be written')
        container.mux(stream.encode())
