import io

import av
import numpy as np
import pytest
from video_files import FRAMES, encode, numbers

from florence_mm.errors import DataError
from florence_mm.formats.video import BACKENDS, PyAVReader, encode_mp4, open_video, usable_backend, write_mp4


@pytest.mark.parametrize('backend', BACKENDS)
def test_frames_come_back(backend):
    data = encode_mp4(FRAMES, fps=5)
    assert data == encode_mp4(FRAMES, fps=5)
    reader = open_video(data, 'x.mp4', backend)
    assert len(reader) == 30 and reader.fps == 5
    frames = reader.read(range(30))
    assert frames.shape == FRAMES.shape and frames.dtype == np.uint8
    # the way to YUV and back rounds
    assert np.abs(frames.astype(int) - FRAMES).max() <= 2
    # colours are not swapped
    red = open_video(encode_mp4(np.broadcast_to(np.uint8([200, 30, 60]), (2, 64, 64, 3))), 'x', backend).read([1])
    np.testing.assert_allclose(red[0, 8, 8], [200, 30, 60], atol=4)
    reader.close()


@pytest.mark.parametrize('backend', BACKENDS)
def test_any_frames_in_any_order_are_exact(backend):
    # key frames 0, 10, 20; frames between that depend on later ones
    data = encode(FRAMES, g=10, keyint_min=10, bf=3, sc_threshold=0, crf=5)
    for indices in ([17], [29, 0, 12, 12, 3], [9, 10, 11], [19, 20], range(30), np.array([5, 25])):
        assert numbers(open_video(data, 'x.mp4', backend).read(indices)) == list(indices)
    # a reader answers more than once
    reader = open_video(data, 'x.mp4', backend)
    assert numbers(reader.read([28])) == [28] and numbers(reader.read([1, 14])) == [1, 14]
    frames = reader.read([4, 4])
    frames[0] = 0
    assert numbers(frames) == [-1, 4]
    for indices in ([30], [-1], []):
        with pytest.raises(IndexError, match='x.mp4 has frames 0 to 29'):
            reader.read(indices)


def test_only_what_is_asked_for_is_decoded(monkeypatch):
    data = encode(FRAMES, g=10, keyint_min=10, bf=1, sc_threshold=0, crf=5, **{'x264-params': 'b-adapt=0:weightp=0'})
    reader = open_video(data, 'x.mp4')
    decoded = []
    frames = reader._frames

    def counted(start, wanted):
        for number, frame in frames(start, wanted):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(reader, '_frames', counted)
    assert numbers(reader.read([4, 23])) == [4, 23]
    # from the key frames 0 and 20; of the frames between every second is needed by no other
    assert decoded == [0, 2, 4, 20, 22, 23]


@pytest.mark.parametrize('backend', BACKENDS)
def test_bad_files_have_their_sentence(backend):
    rng = np.random.default_rng(0)
    good = encode(rng.integers(0, 255, FRAMES.shape, dtype=np.uint8), g=10, crf=20)
    sound = io.BytesIO()
    with av.open(sound, 'w', format='mp4') as file:
        stream = file.add_stream('aac', rate=8000, layout='mono')
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        silence.rate = 8000
        file.mux(stream.encode(silence))
        file.mux(stream.encode())
    for data, message in (
        (b'', 'the video some/a.mp4 is an empty file; replace it or remove it'),
        (b'no video at all' * 99, 'the video some/a.mp4 cannot be read .*; replace it'),
        (
            good[: len(good) // 2],
            'the video some/a.mp4 is cut off: at least .* bytes are missing at its end; replace it',
        ),
        (sound.getvalue(), 'the video some/a.mp4 has no video stream, only others'),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_video(data, 'some/a.mp4', backend)
        assert '\n' not in str(caught.value)
    # a hole in the middle: where the decoder notices it, the frame is named
    hole = good[: len(good) // 3] + bytes(len(good) // 2) + good[len(good) // 3 + len(good) // 2 :]
    reader = open_video(hole, 'some/a.mp4', backend)
    with pytest.raises(DataError, match='the video some/a.mp4 (cannot be decoded|is damaged).*; replace it') as caught:
        reader.read(range(30))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_file_cut_off_behind_its_header_has_its_sentence(backend, tmp_path):
    # the header at the start, as for streaming: the file opens, and its last frames are not there
    with av.open(str(tmp_path / 'a.mp4'), 'w', options={'movflags': '+faststart'}) as file:
        stream = file.add_stream('libx264', rate=10, options={'bf': '0'})
        stream.width, stream.height, stream.pix_fmt = 64, 32, 'yuv420p'
        for frame in np.random.default_rng(0).integers(0, 255, FRAMES.shape, dtype=np.uint8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode())
    whole = (tmp_path / 'a.mp4').read_bytes()
    assert whole.index(b'moov') < whole.index(b'mdat')
    with pytest.raises(
        DataError, match='the video x.mp4 is cut off: at least .* bytes are missing at its end; replace it'
    ):
        open_video(whole[: len(whole) * 6 // 10], 'x.mp4', backend)


def test_frames_that_ffmpeg_fills_up_are_damaged():
    noise = np.random.default_rng(0).integers(0, 255, FRAMES.shape, dtype=np.uint8)
    good = encode(noise, g=5, keyint_min=5, sc_threshold=0, bf=0, crf=20)
    middle = len(good) // 2
    reader = open_video(good[:middle] + bytes(3000) + good[middle + 3000 :], 'x.mp4')
    intact, faults = [], []
    for index in range(30):
        try:
            frame = reader.read([index])
        except DataError as error:
            faults.append(str(error))
            continue
        intact.append(index)
        # to the bit: none of those that come is made up
        np.testing.assert_array_equal(frame, open_video(good, 'x.mp4').read([index]))
    # the key frames before and behind the hole are not concerned
    assert {*range(10), *range(20, 30)} <= set(intact) and 'the video x.mp4 is damaged in frame' in faults[0]


def test_mpeg4_where_there_is_no_x264(monkeypatch):
    monkeypatch.setattr(av, 'codecs_available', {'mpeg4'})
    data = encode_mp4(FRAMES)
    with av.open(io.BytesIO(data)) as file:
        assert file.streams.video[0].codec_context.name == 'mpeg4'
        assert all(packet.is_keyframe for packet in file.demux() if packet.size)
    assert numbers(open_video(data, 'x').read([0, 13, 29])) == [0, 13, 29]


def test_bad_arguments_have_their_sentence():
    with pytest.raises(ValueError, match="backend='opencv' of a video must be one of pyav; leave it out"):
        open_video(b'', 'x', 'opencv')
    with pytest.raises(ValueError, match='frames of 63x32 pixels cannot be written as mp4'):
        encode_mp4(FRAMES[:, :, 1:])
    with pytest.raises(ValueError, match=r'frames have shape \(30, 32, 64\) and type uint8'):
        encode_mp4(FRAMES[..., 0])


@pytest.mark.parametrize('backend', BACKENDS)
def test_all_frames_one_after_the_other(backend):
    data = encode(FRAMES, g=10, keyint_min=10, bf=3, sc_threshold=0, crf=5)
    reader = open_video(data, 'x.mp4', backend)
    assert numbers(reader.read([7])) == [7]
    for _ in range(2):
        frames = list(reader)
        assert numbers(np.stack(frames)) == list(range(30))
    assert numbers(reader.read([3, 25])) == [3, 25]


def test_all_frames_of_other_formats_and_of_damaged_files():
    for container, options in (('h264', {'g': 8, 'bf': 2}), ('mpegts', {'g': 8, 'bf': 2, 'x264-params': 'open-gop=1'})):
        reader = open_video(encode(FRAMES, container, crf=5, **options), 'x')
        assert numbers(np.stack(list(reader))) == list(range(30))
    noise = np.random.default_rng(0).integers(0, 255, FRAMES.shape, dtype=np.uint8)
    good = encode(noise, g=5, keyint_min=5, sc_threshold=0, bf=0, crf=20)
    middle = len(good) // 2
    found = []
    with pytest.raises(DataError, match='the video x.mp4 (is damaged in frame 1[0-9]|cannot be decoded).*; replace it'):
        for frame in open_video(good[:middle] + bytes(3000) + good[middle + 3000 :], 'x.mp4'):
            found.append(frame)
    np.testing.assert_array_equal(found, open_video(good, 'x').read(range(len(found))))
    assert 10 <= len(found) < 20


def test_frames_are_written_as_they_come(tmp_path):
    path = tmp_path / 'new/a.mp4'
    write_mp4(path, iter(FRAMES), 30000 / 1001)
    reader = open_video(path.read_bytes(), 'x')
    assert len(reader) == 30 and reader.fps == pytest.approx(29.97, abs=1e-3)
    np.testing.assert_allclose(np.stack(list(reader)).astype(int), FRAMES, atol=6)

    def stops():
        yield FRAMES[0]
        raise DataError('it ends here')

    with pytest.raises(DataError, match='it ends here'):
        write_mp4(tmp_path / 'b.mp4', stops(), 8)
    for frames, message in (
        ([], 'an mp4 of no frames'),
        ([FRAMES[0], FRAMES[0, :16]], r'shapes \(32, 64, 3\) and \(16, 64, 3\)'),
        ([FRAMES[0, 1:]], 'must be even'),
    ):
        with pytest.raises(ValueError, match=message):
            write_mp4(tmp_path / 'b.mp4', frames, 8)
    with pytest.raises(ValueError, match='must end in .mp4'):
        write_mp4(tmp_path / 'b.avi', FRAMES, 8)
    # nothing half-written is left
    assert [file.name for file in tmp_path.iterdir()] == ['new']


def test_decord_is_retired():
    """It gives other frames for many files: PyAV reads in its place, with a warning."""
    assert list(BACKENDS) == ['pyav'] and usable_backend('pyav', 'a video') == 'pyav'
    data = encode(FRAMES, 'avi', 'mpeg4', g=8, bf=2, qmin=1, qmax=1)
    with pytest.warns(FutureWarning, match="backend='decord' is retired.*'pyav' reads in its place"):
        reader = open_video(data, 'x', 'decord')
    assert isinstance(reader, PyAVReader) and numbers(reader.read([9, 10, 11])) == [9, 10, 11]
    with pytest.warns(FutureWarning, match='DecordReader is now'):
        from florence_mm.formats.video import DecordReader
    assert DecordReader is PyAVReader
