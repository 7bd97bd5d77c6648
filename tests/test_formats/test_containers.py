"""Every container that the field has: each frame is the one asked for, and a file that is cut off is an error."""

import io
import re
import struct
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from video_files import FILES, FINE, FRAMES, OPEN, encode, make, numbers, remux, song

from florence_mm.errors import DataError
from florence_mm.formats import frame_index
from florence_mm.formats.containers import missing_bytes
from florence_mm.formats.video import open_video

#: These have no sizes that tell their end.
ENDLESS = ('H.264 alone', 'H.265 alone', 'MPEG-4 alone', 'Motion JPEG alone', 'mxf MPEG-2', 'nut H.264')


def made(kind):
    try:
        return make(kind)
    except ValueError as error:
        pytest.skip(f'this FFmpeg cannot write {kind}: {error}')


@pytest.mark.parametrize('kind', FILES)
def test_each_frame_is_the_one_asked_for(kind, monkeypatch):
    data = made(kind)
    reader = open_video(data, kind)
    assert len(reader) == 30 and reader.fps in (10, 25)
    assert [numbers(reader.read([i])) for i in range(30)] == [[i] for i in range(30)]
    for indices in ([22, 7, 8, 16, 29], [29, 0, 9, 9], range(30)):
        assert numbers(open_video(data, kind).read(indices)) == list(indices)
    assert numbers(np.stack(list(open_video(data, kind)))) == list(range(30))
    assert missing_bytes(data) == 0
    # too large for keeping frames
    monkeypatch.setattr(frame_index, '_KEPT_BYTES', 0)
    reader = open_video(data, kind)
    assert [numbers(reader.read([i])) for i in (3, 8, 20, 29, 0, 13)] == [[3], [8], [20], [29], [0], [13]]
    assert numbers(np.stack(list(reader))) == list(range(30))


@pytest.mark.parametrize('kind', [kind for kind in FILES if kind not in ENDLESS])
def test_a_file_cut_off_is_an_error(kind):
    data = made(kind)
    sizes = [int(len(data) * part / 20) for part in range(2, 20)]
    # what is made of equal parts may end between two of them
    equal = 188 if 'TS' in kind else 2048 if 'PS' in kind or 'vob' in kind else None
    refused = 0
    for size in [size for size in sizes if equal is None or size % equal]:
        try:
            reader = open_video(data[:size], 'x')
        except DataError as error:
            assert re.match('the video x (is cut off|cannot be read).*; replace it', str(error))
            refused += 1
            continue
        # an index or padding behind the last frame is cut off
        assert numbers(np.stack(list(reader))) == list(range(30))
        assert kind.startswith(('avi', 'vob')) and size > len(data) / 3
    assert refused > len(sizes) / 3


@pytest.mark.parametrize('kind', ['mp4 H.264', 'avi MPEG-4', 'flv H.264'])
def test_what_is_behind_the_last_frame_may_be_rubbish(kind):
    data = make(kind)
    for rubbish in (bytes(3000), b'\xff' * 5, b'\0\0\1\0junk'):
        assert numbers(np.stack(list(open_video(data + rubbish, 'x')))) == list(range(30))


def test_the_bytes_that_are_missing_are_counted():
    mkv = make('matroska H.264')
    assert missing_bytes(mkv[:-1]) == 1 and missing_bytes(mkv[: len(mkv) // 2]) == len(mkv) - len(mkv) // 2
    asf = make('wmv WMV 8')
    assert missing_bytes(asf[:3000]) > 0
    # an mp4 whose boxes have sizes of 64 bits, and one whose last box goes to the end of the file
    large = b'\0\0\0\x10ftypisom\0\0\0\0' + b'\0\0\0\1mdat' + (16 + 40).to_bytes(8, 'big')
    assert missing_bytes(large + bytes(30)) == 10 and missing_bytes(large + bytes(40)) == 0
    assert missing_bytes(b'\0\0\0\x10ftypisom\0\0\0\0' + b'\0\0\0\0mdat' + bytes(9)) == 0
    # matroska of unknown size: a cluster of unknown size with a block of 5 bytes
    live = b'\x1a\x45\xdf\xa3\x80' + b'\x18\x53\x80\x67\x01' + b'\xff' * 7 + b'\x1f\x43\xb6\x75\xff' + b'\xa3\x85abcde'
    assert missing_bytes(live) == 0 and missing_bytes(live[:-2]) == 2
    # large AVI: two lists of frames
    large = b'RIFF\x10\0\0\0AVI LIST\4\0\0\0movi' + b'RIFF\x18\0\0\0AVIXLIST\x0c\0\0\0movi00dc'
    assert missing_bytes(large + b'\0\0\0\0') == 0 and missing_bytes(large) == 4


def test_files_that_begin_within_a_group_have_the_frames_that_a_player_shows():
    data = encode(FRAMES, 'mpegts', **OPEN)
    with av.open(io.BytesIO(data)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    keys = [position for position, packet in enumerate(packets) if packet.is_keyframe]
    # in the order of decoding a key frame comes before frames that are shown earlier and need what is cut away
    assert packets[keys[1] + 1].pts < packets[keys[1]].pts
    order = sorted(range(30), key=lambda i: packets[i].pts)
    for container in ('mpegts', 'matroska', 'mp4', 'flv'):
        whole = data if container == 'mpegts' else encode(FRAMES, container, **OPEN)
        for first, key in ((keys[1], keys[1]), (keys[1] + 1, keys[2]), (3, keys[1])):
            reader = open_video(remux(whole, container, first), 'x')
            shown = list(range(order.index(key), 30))
            assert numbers(np.stack(list(reader))) == shown, (container, first)
            assert numbers(reader.read([len(shown) - 1, 0])) == [29, shown[0]]


def test_edit_lists_leave_out_what_a_player_does_not_show():
    data = encode(FRAMES, g=8, bf=2, **FINE)
    at = data.index(b'elst') + 16  # the time in the track at which showing starts
    start = int.from_bytes(data[at : at + 4], 'big')
    with av.open(io.BytesIO(data)) as file:
        step = int(1 / (10 * file.streams.video[0].time_base))
    for first in (5, 11):
        later = data[:at] + (start + first * step).to_bytes(4, 'big') + data[at + 4 :]
        reader = open_video(later, 'x')
        assert numbers(np.stack(list(reader))) == list(range(first, 30))
        assert [numbers(reader.read([i])) for i in (0, 7, 29 - first)] == [[first], [first + 7], [29]]


@pytest.mark.parametrize('container', ['matroska', 'flv', 'mpegts'])
def test_times_of_decoding_are_not_taken_for_times_of_display(container):
    """A careless muxer has copied the order of decoding."""
    data = remux(encode(FRAMES, 'h264', g=8, bf=2, **FINE), container, decoding_times=True)
    reader = open_video(data, 'x')
    assert [numbers(reader.read([i])) for i in range(30)] == [[i] for i in range(30)]


def test_recordings_one_after_the_other():
    for kind in ('MPEG-TS MPEG-2', 'MPEG-PS MPEG-1', 'H.264 alone'):
        reader = open_video(make(kind) * 2, kind)
        assert numbers(np.stack(list(reader))) == [*range(30), *range(30)]
        assert numbers(reader.read([31, 59, 2])) == [1, 29, 2]


def test_recordings_whose_times_lie_between_each_other():
    first = make('MPEG-TS MPEG-2')
    second = remux(first, 'mpegts', later=100)  # of 3600 between two frames
    assert numbers(np.stack(list(open_video(first + second, 'x')))) == [*range(30), *range(30)]


def test_the_order_changes_late_in_an_avi():
    data = encode(FRAMES, 'avi', intra=20, bf=2, b_strategy=0, **FINE)
    assert [numbers(open_video(data, 'x').read([i])) for i in range(30)] == [[i] for i in range(30)]


@dataclass
class FakePacket:
    """As much of a packet as the index needs."""

    pts: int | None = None
    is_keyframe: bool = False
    is_discard: bool = False
    dts: int | None = None


class FieldDecoder:
    """A decoder of packets with one field each, of which two make a frame."""

    name = 'h264'
    codec = SimpleNamespace(properties=8)
    reorder_depth = 0
    skip_frame = 'DEFAULT'

    def __init__(self, interlaced):
        self.interlaced = interlaced

    def flush_buffers(self):
        """Nothing waits."""

    def decode(self, packet):
        """A frame for each second packet, with the number of the first."""
        if packet is None or packet.pts % 2 == 0:
            return []
        return [SimpleNamespace(pts=packet.pts - 1, key_frame=True, interlaced_frame=self.interlaced, planes=[])]


@pytest.mark.parametrize('interlaced', [True, False])
def test_packets_with_one_field(interlaced):
    """No encoder here writes them, but cameras do (AVCHD)."""
    packets = [FakePacket(is_keyframe=number == 0) for number in range(8)]
    index = frame_index.index_frames(packets, FieldDecoder(interlaced), 'mpegts')
    assert index.shown == [0, 2, 4, 6] and index.keys == [0]
    # a packet without a frame is damage if frames are whole
    assert index.broken == (None if interlaced else 2)


@pytest.mark.parametrize('container', ['mp4', 'mov', 'matroska', 'flv', 'mpegts'])
def test_frames_at_uneven_times(container):
    times = np.cumsum([1, 1, 1, 1, 6] * 6).tolist()
    data = encode(FRAMES, container, times=times, g=8, bf=2, **FINE)
    reader = open_video(data, 'x')
    assert [numbers(reader.read([i])) for i in range(30)] == [[i] for i in range(30)]
    # 29 pauses of 59 tenths of a second
    assert reader.fps == pytest.approx(29 / 5.9, rel=0.03)


def test_pictures_songs_and_playlists_are_no_videos(tmp_path):
    jpeg = encode(FRAMES[:1], 'mjpeg', 'mjpeg', 'yuvj420p')
    secret = tmp_path / 'secret.mp4'
    secret.write_bytes(make('mp4 H.264'))
    song_in_mp4 = io.BytesIO()
    with av.open(song_in_mp4, 'w', format='mp4') as file:
        sound = file.add_stream('aac', rate=8000, layout='mono')
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        silence.rate = 8000
        file.mux(sound.encode(silence))
        file.mux(sound.encode())
    for words, data in (
        ('a song', song(jpeg)),
        ('a picture', jpeg),
        ('a playlist', f'ffconcat version 1.0\nfile {secret}\n'.encode()),
        ('a stream list', f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n'.encode()),
    ):
        with pytest.raises(DataError, match='x.mp4 (is a song, a picture, a playlist|cannot be read)'):
            print(words, len(open_video(data, 'x.mp4')))
    with pytest.raises(DataError, match='x.mp4 has no video stream, only others'):
        open_video(song_in_mp4.getvalue(), 'x.mp4')
    with pytest.raises(DataError, match='x.mp4 has no video stream, only sound and a cover picture'):
        open_video(_with_cover(song_in_mp4.getvalue(), jpeg), 'x.mp4')


def _with_cover(mp4, jpeg):
    """Put a cover into an mp4 as iTunes does: moov/udta/meta/ilst/covr."""

    def box(kind, *parts):
        content = b''.join(parts)
        return struct.pack('>I', 8 + len(content)) + kind + content

    handler = box(b'hdlr', bytes(8), b'mdirappl', bytes(9))
    cover = box(b'ilst', box(b'covr', box(b'data', struct.pack('>II', 13, 0), jpeg)))
    extra = box(b'udta', box(b'meta', bytes(4), handler, cover))
    at = mp4.index(b'moov') - 4
    size = int.from_bytes(mp4[at : at + 4], 'big')
    assert at + size == len(mp4)  # the header is last, so that no offset changes
    return mp4[:at] + struct.pack('>I', size + len(extra)) + mp4[at + 4 :] + extra


def test_packets_with_two_frames(monkeypatch):
    """DivX and Xvid put a B-frame into the packet before, and then an empty one ("packed bitstream")."""
    plain = encode(FRAMES, 'avi', 'mpeg4', g=10, bf=1, qmin=1, qmax=1, b_strategy=0)
    buffer = io.BytesIO()
    with av.open(io.BytesIO(plain)) as source, av.open(buffer, 'w', format='avi') as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        packed = []
        for packet in source.demux(video=0):
            content = bytes(packet)
            start = content.find(b'\0\0\1\xb6')
            if content and content[start + 4] >> 6 == 2:  # a B-frame
                packed[-1] = (packed[-1][0] + content, packed[-1][1])
                packed.append((b'\0\0\1\xb6\x7f\xff\xff', False))
            elif content:
                packed.append((content, packet.is_keyframe))
        content, key = packed[0]
        packed[0] = (content.replace(b'\0\0\1\xb6', b'\0\0\1\xb2DivX503b1393p\0\0\1\xb6', 1), key)
        for number, (content, key) in enumerate(packed):
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, key
            file.mux(packet)
    assert len(packed) == 30 and sum(len(content) == 7 for content, _ in packed) > 9
    for size in (frame_index._KEPT_BYTES, 0):
        monkeypatch.setattr(frame_index, '_KEPT_BYTES', size)
        reader = open_video(buffer.getvalue(), 'x')
        assert [numbers(reader.read([i])) for i in range(30)] == [[i] for i in range(30)]
        assert numbers(np.stack(list(reader))) == list(range(30))


def test_references_that_are_never_shown():
    """VP8 may have them as packets of their own, with a bit that says so (RFC 6386, section 9.1)."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(made('webm VP8'))) as source, av.open(buffer, 'w', format='webm') as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            if packet.is_keyframe and number:
                content = bytearray(bytes(packet))
                content[0] &= ~0x10
                hidden = av.Packet(bytes(content))
                hidden.pts = hidden.dts = packet.pts - 1
                hidden.time_base, hidden.stream, hidden.is_keyframe = packet.time_base, stream, True
                file.mux(hidden)
            packet.stream = stream
            file.mux(packet)
    reader = open_video(buffer.getvalue(), 'x')
    assert len(reader) == 30
    assert [numbers(reader.read([i])) for i in range(30)] == [[i] for i in range(30)]


def test_damage_in_files_that_are_decoded_for_their_order():
    noise = np.random.default_rng(0).integers(0, 255, FRAMES.shape, dtype=np.uint8)
    data = encode(noise, 'avi', 'libx264', g=5, bf=2, sc_threshold=0, crf=20)
    whole = open_video(data, 'x').read(range(30))
    # a hole within one packet: frames before it come, those after it are not numbered by guess
    with av.open(io.BytesIO(data)) as file:
        middle = [packet for packet in file.demux(video=0) if packet.size][15]
    hole = data[: middle.pos] + bytes(middle.size) + data[middle.pos + middle.size :]
    reader, intact = open_video(hole, 'x.avi'), []
    for index in range(len(reader)):
        try:
            frame = reader.read([index])[0]
        except DataError as error:
            assert 'the video x.avi is damaged in frame' in str(error)
            continue
        np.testing.assert_array_equal(frame, whole[index])
        intact.append(index)
    assert set(range(10)) <= set(intact) and 15 not in intact
    with pytest.raises(DataError, match='x.avi is damaged in frame'):
        list(open_video(hole, 'x.avi'))
    # a hole over the headers of packets, which are then lost
    hole = data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :]
    with pytest.raises(
        DataError, match=r'x.avi is damaged: \d+ of the frames in its index are not where they should be'
    ):
        open_video(hole, 'x.avi')
