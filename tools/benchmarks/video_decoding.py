"""Speed of decoding clips compared with mmaction2's pipelines, its PyAV and its decord, on generated mp4 files.

python tools/benchmarks/video_decoding.py [--only NAME] [--rounds N] [--out FILE]

A clip is 16 frames, every fourth of the middle (of the embedded clips 8, every second); "views" are 4 such clips. Files
are in the system's cache. Clips a second are 1000 over the milliseconds.
"""

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from common import Case, Pair, main
from mmengine.dataset import Compose

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.corpora.clips import FPS, ClipOptions, make_clip
from florence_mm.formats.video import encode_mp4

# ours, and what mmaction2's configs begin with (DecordInit in all of them, PyAV as the other backend)
OURS = [{'type': 'florence_mm.VideoInit'}, {'type': 'florence_mm.VideoDecode'}]
PEERS = {
    'pyav': [{'type': 'mmaction.PyAVInit'}, {'type': 'mmaction.PyAVDecode'}],
    'decord': [{'type': 'mmaction.DecordInit'}, {'type': 'mmaction.DecordDecode'}],
}


def scene(gop: int, frames: int = 300, width: int = 320, height: int = 240) -> bytes:
    """An image that moves under a bright spot, as H.264 of usual quality with frames that depend on later ones."""
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (40, 100, 3), dtype=np.uint8), (2 * width, height), interpolation=2)
    buffer = io.BytesIO()
    with av.open(buffer, 'w', format='mp4') as container:
        options = {'crf': '23', 'g': str(gop), 'bf': '2', 'sc_threshold': '0'}
        stream = container.add_stream('libx264', rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for i in range(frames):
            frame = np.ascontiguousarray(wide[:, i : i + width])
            cv2.circle(frame, (i, height // 2), 20, (255, 255, 255), -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return buffer.getvalue()


def embedded() -> bytes:
    """A clip of the embedded data: 16 frames of 64x64 pixels."""
    return encode_mp4(make_clip(ClipOptions(), 'train', 0)[0], FPS)


def _pair(data: Callable[[], bytes], peer: str, num_clips: int, length: int, interval: int) -> Pair:
    file = Path(tempfile.mkdtemp(prefix='florence_mm_'), 'video.mp4')
    file.write_bytes(data())
    sample = {'type': 'mmaction.SampleFrames', 'clip_len': length, 'frame_interval': interval}
    sample |= {'num_clips': num_clips, 'test_mode': True}

    def reader(steps: list[dict]) -> Callable[[], list[torch.Tensor]]:
        pipeline = Compose([steps[0], sample, steps[1]])

        def read() -> list[torch.Tensor]:
            return [torch.from_numpy(image) for image in pipeline({'filename': str(file), 'start_index': 0})['imgs']]

        return read

    return Pair(reader(OURS), reader(PEERS[peer]))


def cases() -> list[Case]:
    """The comparisons of this file.

    Ours must not be slower than mmaction2's PyAV; ours beside mmaction2's default, decord, is reported.
    """
    files = {
        'gop12_clip': (lambda: scene(12), 1, 16, 4),
        'gop12_views': (lambda: scene(12), 4, 16, 4),
        'gop250_clip': (lambda: scene(250), 1, 16, 4),
        'gop250_views': (lambda: scene(250), 4, 16, 4),
        'embedded_clip': (embedded, 1, 8, 2),
    }
    return [
        Case(f'pyav_vs_{peer}_{name}', bar, lambda p=peer, a=arguments: _pair(a[0], p, *a[1:]), rounds=15)
        for name, arguments in files.items()
        for peer, bar in (('pyav', 1.0), ('decord', 0.0))
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
