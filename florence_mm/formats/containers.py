"""Structure of video containers: which are read, and whether a file ends before its last part does.

FFmpeg reads a file that was cut off up to its last whole packet and reports nothing for most containers, so that half
a film would pass as a short one.
"""

from collections.abc import Callable

#: Demuxers of FFmpeg for videos. Others are refused: songs, pictures, and playlists, which name more files to open.
FORMATS = (
    'apng,asf,av1,avi,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,'
    'nut,obu,ogg,rm,vc1,vvc,wtv,yuv4mpegpipe'
)
_ASF_HEADER = bytes.fromhex('3026b2758e66cf11a6d900aa0062ce6c')
_ASF_DATA = bytes.fromhex('3626b2758e66cf11a6d900aa0062ce6c')
_MP4_STARTS = (b'ftyp', b'moov', b'mdat', b'moof', b'styp', b'sidx', b'wide', b'free', b'skip')


def missing_bytes(data: bytes) -> int:
    """Count the bytes that a video file lacks by its own structure, at least.

    Args:
        data (bytes): Content of the file.

    Returns:
        int: 0 if the file is whole, or of a format that does not say: other raw streams than Motion JPEG, NUT, MXF,
        RealMedia. A file that
        is made of equal parts (MPEG-TS, MPEG-PS, Ogg, FLV, fragmented mp4, live Matroska) and ends between two of them
        is whole.
    """
    for begins, end in _FAMILIES:
        if begins(data):
            return max(0, end(data) - len(data))
    return 0


def _end_of_mp4(data: bytes) -> int:
    """Boxes (ISO/IEC 14496-12, section 4.2); what follows the last frame may be rubbish."""
    at = 0
    while at + 8 <= len(data):
        size, kind, header = _big(data, at, 4), data[at + 4 : at + 8], 8
        if size == 1:
            size, header = _big(data, at + 8, 8), 16
        if size < header:  # 0: up to the end of the file
            break
        at += size
        if at > len(data):
            return at if kind in (b'moov', b'mdat', b'moof') else 0
    return 0


def _end_of_matroska(data: bytes) -> int:
    """EBML elements (RFC 8794); live files leave the sizes of segment and clusters open, and these are entered."""
    at = 0
    while at < len(data):
        id_length = _leading_zeros(data[at]) + 1
        if id_length > 4 or at + id_length >= len(data):
            return at + id_length + 1 if id_length <= 4 else 0
        at += id_length
        length = _leading_zeros(data[at]) + 1
        if length > 8:
            return 0
        if at + length > len(data):
            return at + length
        size = _big(data, at, length) & ((1 << 7 * length) - 1)
        at += length
        if size != (1 << 7 * length) - 1:
            at += size
    return at


def _end_of_avi(data: bytes) -> int:
    """Chunks of RIFF up to the last list of frames; the index behind it may be lost."""
    at, frames = 12, False
    while at + 12 <= len(data):
        kind, size, inner = data[at : at + 4], _little(data, at + 4, 4), data[at + 8 : at + 12]
        if kind == b'RIFF':  # the next part of a large file
            at += 12
            continue
        frames |= inner == b'movi'
        at += 8 + size
        # in a live file, whose list says 0, its frames follow as chunks
        if at > len(data) and (kind == b'LIST' or kind[2:] in (b'dc', b'db', b'wb') or not frames):
            return at if size < 0xFFFFFFFF else 0
        at += size % 2
    return 0 if frames else at + 12


def _end_of_flv(data: bytes) -> int:
    """Tags of 11 bytes and their content, each followed by its size in 4 bytes."""
    at = _big(data, 5, 4) + 4
    while at < len(data):
        if data[at] & 0x1F not in (8, 9, 18):  # neither sound nor video nor script
            return 0
        at += 15 + _big(data, at + 1, 3)
    return at


def _end_of_ogg(data: bytes) -> int:
    """Pages (RFC 3533, section 6)."""
    at = 0
    while at < len(data):
        if data[at : at + 4] != b'OggS'[: len(data) - at]:
            return 0
        if at + 27 > len(data):
            return at + 27
        segments = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + data[at + 26] + sum(segments)
    return at


def _end_of_asf(data: bytes) -> int:
    """The header and the data object; what follows them is an index."""
    at = _little(data, 16, 8)
    if data[at : at + 16] != _ASF_DATA:
        return at
    size = _little(data, at + 16, 8)
    return at + size if size > 50 else 0  # a live file has none


def _end_of_gif(data: bytes) -> int:
    """Blocks up to the end mark 0x3B."""

    def colours(at: int) -> int:
        return 3 << (data[at] % 8 + 1) if data[at] & 0x80 else 0

    try:
        at = 13 + colours(10)
        while data[at] != 0x3B:
            if data[at] == 0x21:
                at += 2
            elif data[at] == 0x2C:
                at += 11 + colours(at + 9)
            else:
                return 0
            while data[at]:
                at += data[at] + 1
            at += 1
    except IndexError:
        return len(data) + 1
    return 0


def _end_of_transport_stream(data: bytes) -> int:
    size = next(size for size in (188, 192, 204) if _is_transport_stream(data, size))
    rest = len(data) % size
    sync = len(data) - rest + (size == 192) * 4
    return len(data) - rest + size if rest and data[sync : sync + 1] in (b'', b'\x47') else 0


def _end_of_program_stream(data: bytes) -> int:
    """Packs and packets (ISO/IEC 13818-1, section 2.5)."""
    at = 0
    while at + 14 <= len(data):
        if data[at : at + 3] != b'\0\0\1' or data[at + 3] < 0xBA:  # rubbish, or the end mark
            return 0
        if data[at + 3] == 0xBA:
            at += 14 + data[at + 13] % 8 if data[at + 4] & 0xC0 == 0x40 else 12
        else:
            at += 6 + _big(data, at + 4, 2)
    return at


def _end_of_ivf(data: bytes) -> int:
    """Frames of 12 bytes and their content."""
    at = _little(data, 6, 2)
    while at < len(data):
        if at + 12 > len(data):
            return at + 12
        at += 12 + _little(data, at, 4)
    return at


def _end_of_apng(data: bytes) -> int:
    """Chunks of PNG up to the end mark IEND."""
    at, kind = 8, b''
    while at < len(data) and kind != b'IEND':
        kind = data[at + 4 : at + 8]
        at += 12 + _big(data, at, 4)
    return at if kind == b'IEND' else at + 12


def _end_of_motion_jpeg(data: bytes) -> int:
    """A raw stream of JPEG, of which the last must have its end mark."""
    return 0 if data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xd8\xff') else len(data) + 2


def _is_transport_stream(data: bytes, size: int) -> bool:
    first = 4 if size == 192 else 0
    return len(data) > 2 * size + first and data[first] == data[first + size] == data[first + 2 * size] == 0x47


def _big(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], 'big')


def _little(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], 'little')


def _leading_zeros(byte: int) -> int:
    return 8 - byte.bit_length()


#: How a file of a family begins, and where it ends by its structure (0: it does not say).
_FAMILIES: list[tuple[Callable[[bytes], bool], Callable[[bytes], int]]] = [
    (lambda data: data[4:8] in _MP4_STARTS, _end_of_mp4),
    (lambda data: data[:4] == b'\x1a\x45\xdf\xa3', _end_of_matroska),
    (lambda data: data[:4] == b'RIFF' and data[8:12] == b'AVI ', _end_of_avi),
    (lambda data: data[:3] == b'FLV', _end_of_flv),
    (lambda data: data[:4] == b'OggS', _end_of_ogg),
    (lambda data: data[:16] == _ASF_HEADER, _end_of_asf),
    (lambda data: data[:4] == b'GIF8', _end_of_gif),
    (lambda data: data[:8] == b'\x89PNG\r\n\x1a\n', _end_of_apng),
    (lambda data: data[:3] == b'\xff\xd8\xff', _end_of_motion_jpeg),
    (lambda data: data[:4] == b'DKIF', _end_of_ivf),
    (lambda data: data[:4] == b'\0\0\1\xba', _end_of_program_stream),
    (lambda data: any(_is_transport_stream(data, size) for size in (188, 192, 204)), _end_of_transport_stream),
]
