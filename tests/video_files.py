"""Videos in memory whose frames are known by their grey, for several tests."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType

GREY = np.repeat(np.arange(10, 250, 8, dtype=np.uint8), 3).reshape(-1, 1, 1, 3)  # (30, 1, 1, 3)
FRAMES = np.broadcast_to(GREY, (30, 32, 64, 3)).copy()  # frame i has the grey 10 + 8 i

FINE = {'crf': 5}
FLAT = {'qmin': 1, 'qmax': 1}
OPEN = {'x264-params': 'open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0', 'crf': 5}
#: Container, codec, options and pixel format of what the field's files are, as FFmpeg's muxers and encoders name them.
FILES = {
    'mp4 H.264': ('mp4', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'mp4 H.264, open groups': ('mp4', 'libx264', OPEN),
    'mp4 H.264, in fragments': ('mp4', 'libx264', {'g': 8, 'bf': 2, 'movflags': 'frag_keyframe+empty_moov', **FINE}),
    'mp4 H.264, interlaced': ('mp4', 'libx264', {'g': 8, 'bf': 2, 'x264-params': 'tff=1', **FINE}),
    'mp4 H.265': ('mp4', 'libx265', {'g': 8, 'bf': 2, 'x265-params': 'log-level=0', **FINE}),
    'mp4 AV1': ('mp4', 'libsvtav1', {'g': 8, 'preset': 10, **FINE}),
    'mp4 MPEG-4': ('mp4', 'mpeg4', {'g': 8, 'bf': 2, **FLAT}),
    'mov H.264': ('mov', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'mov Motion JPEG': ('mov', 'mjpeg', FLAT, 'yuvj420p'),
    '3gp H.263': ('3gp', 'h263', {'g': 8, **FLAT}),
    'matroska H.264': ('matroska', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'matroska MPEG-2': ('matroska', 'mpeg2video', {'g': 8, 'bf': 2, **FLAT}),
    'matroska H.264, live': ('matroska', 'libx264', {'g': 8, 'bf': 2, 'live': 1, **FINE}),
    'webm VP8': ('webm', 'libvpx', {'g': 8, 'crf': 4, 'b': '2M', 'cpu-used': 8}),
    'webm VP9': ('webm', 'libvpx-vp9', {'g': 8, 'crf': 10, 'cpu-used': 8}),
    'avi H.264, B-frames': ('avi', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'avi H.264, open groups': ('avi', 'libx264', OPEN),
    'avi MPEG-4, B-frames': ('avi', 'mpeg4', {'g': 8, 'bf': 2, **FLAT}),
    'avi MPEG-4': ('avi', 'mpeg4', {'g': 8, 'bf': 0, **FLAT}),
    'avi Motion JPEG': ('avi', 'mjpeg', FLAT, 'yuvj420p'),
    'flv H.264': ('flv', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'flv H.263': ('flv', 'flv', {'g': 8, **FLAT}),
    'asf H.264, B-frames': ('asf', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'wmv WMV 8': ('asf', 'wmv2', {'g': 8, **FLAT}),
    'ogg VP8': ('ogg', 'libvpx', {'g': 8, 'crf': 4, 'b': '2M', 'cpu-used': 8}),
    'ogg Theora': ('ogg', 'libtheora', {'g': 8, 'q': 10}),
    'gif': ('gif', 'gif', {}, 'rgb8'),
    'apng': ('apng', 'apng', {}, 'rgb24'),
    'Motion JPEG alone': ('mjpeg', 'mjpeg', FLAT, 'yuvj420p'),
    'MPEG-TS H.264, open groups': ('mpegts', 'libx264', OPEN),
    'MPEG-TS H.264, interlaced': ('mpegts', 'libx264', {'g': 8, 'bf': 2, 'x264-params': 'tff=1', **FINE}),
    'MPEG-TS MPEG-2': ('mpegts', 'mpeg2video', {'g': 8, 'bf': 2, **FLAT}),
    'MPEG-PS MPEG-1': ('mpeg', 'mpeg1video', {'g': 8, 'bf': 2, **FLAT}),
    'vob MPEG-2': ('vob', 'mpeg2video', {'g': 8, 'bf': 2, **FLAT}),
    'vob H.264': ('vob', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'H.264 alone': ('h264', 'libx264', {'g': 8, 'bf': 2, **FINE}),
    'H.265 alone': ('hevc', 'libx265', {'g': 8, 'bf': 2, 'x265-params': 'log-level=0', **FINE}),
    'MPEG-4 alone': ('m4v', 'mpeg4', {'g': 8, 'bf': 2, **FLAT}),
    'mxf MPEG-2': ('mxf', 'mpeg2video', {'g': 8, 'bf': 2, **FLAT}),
    'nut H.264': ('nut', 'libx264', {'g': 8, 'bf': 2, **FINE}),
}


def encode(frames, container='mp4', codec='libx264', pix_fmt='yuv420p', times=None, intra=0, **options):
    """Encode frames, the first ``intra`` as key frames; ``times`` are theirs in tenths of a second, else one apart.

    Raises:
        ValueError: the installed FFmpeg has no such encoder or muxer, or does not put one into the other.
    """
    buffer = io.BytesIO()
    options = {key: str(value) for key, value in options.items()}
    muxer = {key: options.pop(key) for key in ('movflags', 'live') if key in options}
    with av.open(buffer, 'w', format=container, options=muxer) as file:
        stream = file.add_stream(
            codec, rate=25 if container in ('mpeg', 'vob', 'mxf', 'mpegts') else 10, options=options
        )
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 10)
            if number < intra:
                frame.pict_type = PictureType.I
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def make(kind):
    """The 30 frames as one of ``FILES``; H.263 has sizes of its own."""
    container, codec, options, *pix_fmt = FILES[kind]
    frames = np.broadcast_to(GREY, (30, 144, 176, 3)) if codec in ('h263', 'flv') else FRAMES
    return encode(frames, container, codec, *pix_fmt, **options)


def numbers(frames):
    """Which of FRAMES these are."""
    return ((frames.mean((1, 2, 3)) - 10) / 8).round().astype(int).tolist()


def remux(data, container, first=0, decoding_times=False, later=0):
    """Copy the packets from ``first`` on into another container, ``later`` or with times of decoding alone."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, 'w', format=container) as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= first:
                if decoding_times:
                    packet.pts = packet.dts = number
                    packet.time_base = Fraction(1, 10)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = stream
                file.mux(packet)
    return buffer.getvalue()


def turn(mp4, a, b, c, d):
    """Write a display matrix of whole numbers into the track header of an mp4 (ISO/IEC 14496-12, section 8.3.2)."""
    at = mp4.index(b'tkhd') + 4 + 40  # version 0: flags, five numbers, reserved, layer, group, volume
    matrix = struct.pack('>9i', a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return mp4[:at] + matrix + mp4[at + 36 :]


def song(cover):
    """An MP3 of one silent frame with a picture of its cover (ID3 version 2.3)."""
    picture = b'\0image/jpeg\0\3\0' + cover
    frame = b'APIC' + struct.pack('>I', len(picture)) + b'\0\0' + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    # MPEG-1 layer 3, 128 kbit/s, 44.1 kHz, one channel: 417 bytes a frame
    return b'ID3\3\0\0' + size + frame + (b'\xff\xfb\x90\xc0' + bytes(413)) * 20
