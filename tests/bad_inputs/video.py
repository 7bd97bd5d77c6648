"""Bad inputs: video files, the transforms that read them, and tools/video.py."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from video_files import FILES, FINE, FRAMES, OPEN, encode, make, numbers, remux, song, turn

from florence_mm.apis.base import list_inputs
from florence_mm.apis.video_inputs import VIDEOS, open_file, split_windows
from florence_mm.datasets.transforms.video import VideoDecode, VideoInit
from florence_mm.formats.video import encode_mp4, open_video, usable_backend, write_mp4

from .case import BadInput, call, command

AREA = 'videos'
CONFIG = 'florence_mm::video_coswin/video_coswin-micro_2xb5-3e_clips.py'
#: A container and its codec that must have all their frames in order, and the share of the file at which it is cut off.
CUTS = {
    'mp4 H.264': 0.6,
    'mp4 H.264, in fragments': 0.6,
    'mp4 H.265': 0.4,
    'mp4 AV1': 0.5,
    'mov H.264': 0.5,
    '3gp H.263': 0.6,
    'matroska H.264': 0.6,
    'matroska H.264, live': 0.6,
    'webm VP8': 0.5,
    'webm VP9': 0.5,
    'avi H.264, B-frames': 0.5,
    'avi MPEG-4, B-frames': 0.6,
    'avi Motion JPEG': 0.5,
    'flv H.264': 0.6,
    'wmv WMV 8': 0.6,
    'asf H.264, B-frames': 0.5,
    'ogg VP8': 0.6,
    'gif': 0.6,
    'apng': 0.6,
    'Motion JPEG alone': 0.61,
}
#: Display matrix (a, b, c, d) -> grey of the corners in reading order, of a frame with 1 2 3 4.
TURNS = {
    'a quarter clockwise': ((0, 1, -1, 0), [3, 1, 4, 2]),
    'upside down and mirrored': ((-1, 0, 0, -1), [4, 3, 2, 1]),
    'a quarter counterclockwise': ((0, -1, 1, 0), [2, 4, 1, 3]),
    'mirrored': ((-1, 0, 0, 1), [2, 1, 4, 3]),
    'along the diagonal': ((0, 1, 1, 0), [1, 3, 2, 4]),
}


def _order(data: bytes) -> list[int]:
    """Which frames come when each is asked for alone."""
    count = len(open_video(data, 'clip'))
    return [numbers(open_video(data, 'clip').read([i]))[0] for i in range(count)]


def _cut(data: bytes, share: float) -> int:
    return len(open_video(data[: int(len(data) * share)], 'clip'))


def _corners(matrix: tuple[int, int, int, int]) -> list[int]:
    rows = np.repeat(np.repeat([[1, 2], [3, 4]], 24, 0), 32, 1)[..., None] * 50
    data = turn(encode(np.repeat(rows, 3, 2).astype(np.uint8)[None], crf=1), *matrix)
    frame = open_video(data, 'phone.mp4').read([0])[0, ..., 0]
    height, width = frame.shape
    return [round(frame[h, w] / 50) for h in (height // 4, -height // 4) for w in (width // 4, -width // 4)]


def _begun_late(container: str) -> list[int]:
    data = encode(FRAMES, container, **OPEN)
    with av.open(io.BytesIO(data)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    second = [position for position, packet in enumerate(packets) if packet.is_keyframe][1]
    frames = numbers(np.stack(list(open_video(remux(data, container, second), 'clip'))))
    return [len(frames), frames[-1], sum(b - a != 1 for a, b in zip(frames, frames[1:], strict=False))]


def _ended_early(container: str) -> int:
    """How many of the frames behind the second key frame are shown."""
    data = encode(FRAMES, container, **OPEN)
    with av.open(io.BytesIO(data)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    second = [packet.pts for packet in packets if packet.is_keyframe][1]
    return sum(packet.pts >= second for packet in packets)


def _two_streams() -> list[int]:
    """Which frames a Matroska file shows that has a smaller stream before its default one."""
    buffer = io.BytesIO()
    with av.open(buffer, 'w', format='matroska') as file:
        streams = [file.add_stream('mpeg4', rate=10, options={'qmin': '1', 'qmax': '1'}) for _ in range(2)]
        streams[0].disposition, streams[1].disposition = Disposition(0), Disposition.default
        for stream, size in zip(streams, (16, 32), strict=True):
            stream.width = stream.height = size
            stream.pix_fmt = 'yuv420p'
        for stream, size in zip(streams, (16, 32), strict=True):
            for pixels in FRAMES[:10] if size == 32 else FRAMES[20:22]:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels[:size, :size].copy(), format='rgb24')))
            file.mux(stream.encode())
    return numbers(open_video(buffer.getvalue(), 'clip').read([9, 8, 7]))


def _file(content: bytes | None) -> Callable[[Path], Any]:
    def run(folder: Path) -> int:
        if content is not None:
            (folder / 'clip.mp4').write_bytes(content)
        return len(open_file(folder / 'clip.mp4', 'pyav'))

    return run


def _odd_file(make_it: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def run(folder: Path) -> int:
        make_it(folder / 'clip.mp4')
        return VideoInit().transform({'filename': str(folder / 'clip.mp4'), 'source': 'list.txt, line 3'})

    return run


def _tool(*args: str, **files: bytes) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'clip.mp4').write_bytes(encode_mp4(FRAMES[:8]))
        for name, content in files.items():
            (folder / f'{name}.txt').write_bytes(content)
        return command('tools/video.py', CONFIG, 'model.pth', 'clip.mp4', *args)

    return run


def _transformed(**keys: Any) -> Any:
    return VideoDecode().transform({'frame_inds': np.array([0]), **keys})


def _decoded(indices: Any) -> Any:
    return _transformed(video_reader=open_video(encode_mp4(FRAMES[:8]), 'clip.mp4'), frame_inds=indices)


def _windows(folder: Path, window: float, stride: float | None) -> list[tuple[int, int]]:
    reader = open_video(encode_mp4(FRAMES[:8], fps=4), 'clip.mp4')
    return [(span.first, span.count) for span in split_windows(reader, window, stride)]


def cases() -> list[BadInput]:
    whole = list(range(30))
    rows = []
    for kind in FILES:
        try:
            data = make(kind)
        except ValueError:
            continue  # this FFmpeg cannot write it
        rows.append(BadInput(f'{kind}: each of 30 frames asked for alone', call(_order, data), gives=whole))
        if kind in CUTS:
            share = CUTS[kind]
            rows.append(
                BadInput(f'{kind}, cut off at {share:.0%}', call(_cut, data, share), ('the video clip', 'replace it'))
            )
    for name, (matrix, corners) in TURNS.items():
        rows.append(BadInput(f'mp4 to be shown {name}', call(_corners, matrix), gives=corners))
    rows.append(BadInput('mp4 to be shown turned by 45 degrees', call(_corners, (1, 1, -1, 1)), '45 degrees'))
    for container in ('mp4', 'matroska', 'flv'):
        rows.append(
            BadInput(
                f'{container} that begins within a group of pictures',
                call(_begun_late, container),
                gives=[_ended_early(container), 29, 0],
            )
        )
    rows.append(BadInput('a preview before the video that is the default', call(_two_streams), gives=[9, 8, 7]))
    jpeg = encode(FRAMES[:1], 'mjpeg', 'mjpeg', 'yuvj420p')
    mp4, raw = encode_mp4(FRAMES), encode(FRAMES, 'h264', g=8, bf=2, **FINE)
    mixed = {
        'times of decoding in Matroska': remux(raw, 'matroska', decoding_times=True),
        'times of decoding in FLV': remux(raw, 'flv', decoding_times=True),
        'an mp4 with rubbish behind it': mp4 + bytes(500),
        'frames at uneven times': encode(FRAMES, 'matroska', times=np.cumsum([1, 5, 1] * 10).tolist(), g=8, **FINE),
    }
    rows += [BadInput(words, call(_order, data), gives=whole) for words, data in mixed.items()]
    for words, content, says in (
        ('that is missing', None, 'No such file'),
        ('that is empty', b'', 'is an empty file'),
        ('of one byte', b'\0', 'cannot be read'),
        ('of text', b'no video at all\n' * 200, 'cannot be read'),
        ('of zeros', bytes(5000), 'clip.mp4'),
        ('that is a picture', jpeg, 'a picture'),
        ('that is a song with a picture of its cover', song(jpeg), 'a song'),
        ('that is a playlist', b'ffconcat version 1.0\nfile clip2.mp4\n', 'a playlist'),
        ('that is subtitles', b'1\n00:00:01,000 --> 00:00:02,000\nhello\n\n' * 9, 'not read as a video'),
        ('with a header alone', mp4[:40], 'clip.mp4'),
        ('whose header is lost', bytes(40) + mp4[40:], 'clip.mp4'),
        ('without its table of frames', mp4[: mp4.index(b'moov') - 4], 'cannot be read'),
    ):
        rows.append(BadInput(f'a file x.mp4 {words}', _file(content), ('clip.mp4', says)))
    for words, make_it, says in (
        ('a folder', Path.mkdir, 'is a folder'),
        ('a named pipe', os.mkfifo, 'is a named pipe'),
        ('a link to nothing', lambda path: path.symlink_to('none'), 'No such file'),
        ('a link to a device', lambda path: path.symlink_to('/dev/zero'), 'is a device'),
    ):
        rows.append(BadInput(f'a video of a list that is {words}', _odd_file(make_it), ('list.txt, line 3', says)))
    for path in ('a\0b.mp4', 'x' * 5000, None, 7, '', 'unknown://x.mp4'):
        run = call(VideoInit().transform, {'filename': path, 'source': 'list.txt, line 3'})
        rows.append(BadInput(f'a path of a video {str(path)[:20]!r}', run, 'list.txt, line 3'))
    for key, values in {
        'backend': ('opencv', '', None, 1, ['pyav'], {}),
        'min_frames': (0, -3, 1.5, '8', None, float('nan'), True, [4]),
        'backend_args': ('local', 5, ['local']),
    }.items():
        rows += [BadInput(f'VideoInit({key}={v!r})', lambda _, k=key, v=v: VideoInit(**{k: v}), key) for v in values]
    rows += [
        BadInput('backend="decord" of earlier releases', call(usable_backend, 'decord', 'x'), gives='pyav'),
        BadInput('VideoDecode without VideoInit', call(_transformed), 'put VideoInit'),
        BadInput('VideoDecode without a sampler', lambda _: VideoDecode().transform({'video_reader': 1}), 'a sampler'),
        BadInput('a sampler that counts from 1', call(_decoded, [1, 8]), ('frames 0 to 7', 'start_index')),
        BadInput('a sampler with a frame before the first', call(_decoded, [-1]), 'frames 0 to 7'),
        BadInput('a sampler without frames', call(_decoded, []), 'frames 0 to 7'),
        BadInput('frames of odd size written as mp4', lambda f: write_mp4(f / 'a.mp4', FRAMES[:, 1:], 8), 'even'),
        BadInput('no frames written as mp4', lambda f: write_mp4(f / 'a.mp4', [], 8), 'no frames'),
        BadInput('frames written as avi', lambda f: write_mp4(f / 'a.avi', FRAMES, 8), '.mp4'),
        BadInput('frames of numbers below 1 written as mp4', call(encode_mp4, FRAMES / 255.0), 'uint8'),
        BadInput('a window longer than the video', lambda f: _windows(f, 99.0, None), gives=[(0, 8)]),
        BadInput('a window shorter than a frame', lambda f: len(_windows(f, 0.01, 0.01)), gives=8),
        BadInput('a folder without videos', lambda f: list_inputs(str(f), VIDEOS), 'has no videos'),
        BadInput('no videos', call(list_inputs, [], VIDEOS), 'no videos were given'),
        BadInput('a number among the videos', call(list_inputs, [3], VIDEOS), '3'),
        BadInput(
            'video.py with --class-names of a picture', _tool('--class-names', 'a.txt', a=jpeg), ('a.txt', 'UTF-8')
        ),
        BadInput('video.py without checkpoint', _tool(), 'model.pth'),
        BadInput('video.py with --activation-map for JPEG', _tool('--activation-map', 'a.jpg'), '.png'),
        BadInput('video.py with --activation-class alone', _tool('--activation-class', 'up'), '--activation-map'),
    ]
    for option, values in {
        '--device': ('foo', 'cuda:77', ''),
        '--top': ('0', '-1', '1.5', 'all'),
        '--window': ('0', '-2', 'nan', 'inf', 'two'),
        '--stride': ('0', 'nan'),
        '--batch-size': ('0', 'x'),
    }.items():
        rows += [
            BadInput(f'video.py {option} {value or "(nothing)"}', _tool(option, value), option) for value in values
        ]
    return rows
