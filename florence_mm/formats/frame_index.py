"""Index of the frames of a video: which packet holds the frame that a player shows as number n.

Packets are stored in the order of decoding, in which a frame may come before others that are shown earlier. Where that
can be so, the order of display comes from the times of the packets, if the container has times of display, and from
decoding the whole file if not.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import lt

import av
from av.codec.codec import Properties

#: Demuxers of containers with the time of display of every packet. AVI and ASF have none, FFmpeg guesses; raw streams
#: and MPEG-PS have them for no or for some packets.
_TIMED = {'flv', 'gxf', 'matroska', 'mov', 'mpegts', 'mxf', 'nut', 'ogg'}
#: Decoded frames of up to this many bytes are kept when a file had to be decoded for its order.
_KEPT_BYTES = 64 << 20
_TRIED = 16
#: Decoders of VP8, which keeps references that are never shown apart, marked by a bit (RFC 6386, section 9.1).
_HIDING = ('vp8', 'libvpx')


@dataclass
class FrameIndex:
    """Index of the frames of a video.

    Attributes:
        packets (Sequence[av.Packet]): In the order of decoding; ``pts`` is the position here, which a decoded frame
            has from its packet.
        shown (list[int]): Position of the packet of each frame, in the order of display.
        keys (list[int]): Numbers of frames that decoding can start from, sorted.
        broken (int | None): The first frame whose number is not certain, as a packet before it gives no frame.
        kept (dict[int, av.VideoFrame]): All decoded frames by number, or none.
        times (list[int | None]): ``pts`` of each packet in the file.
        rising (bool): Whether the times of decoding rise, as those of one recording do.
    """

    packets: Sequence[av.Packet]
    shown: list[int]
    keys: list[int] = field(default_factory=list)
    broken: int | None = None
    kept: dict[int, av.VideoFrame] = field(default_factory=dict)
    times: Sequence[int | None] = ()
    rising: bool = True

    def __post_init__(self) -> None:
        self.numbers = {position: number for number, position in enumerate(self.shown)}


def index_frames(packets: Sequence[av.Packet], context: av.VideoCodecContext, container: str) -> FrameIndex:
    """Number the frames of a video in the order of display.

    Args:
        packets (Sequence[av.Packet]): All packets with content, in the order of the file; their ``pts`` is replaced.
        context (av.VideoCodecContext): Their decoder.
        container (str): Names of FFmpeg's demuxer, with commas between.

    Raises:
        av.error.FFmpegError: nothing can be decoded.
    """
    times = [packet.pts for packet in packets]
    rising = _rise([packet.dts for packet in packets])
    starts = [position for position, packet in enumerate(packets) if packet.is_keyframe]
    for position, packet in enumerate(packets):
        packet.pts = position
    index = None
    # a file that starts within a group of frames is decoded: nothing else tells which of them come out
    if starts and not starts[0]:
        shown = [position for position, packet in enumerate(packets) if not packet.is_discard]
        if context.name in _HIDING:
            shown = [position for position in shown if memoryview(packets[position])[0] & 0x10]
        ordered = not _reorders(context)
        if not ordered and rising and not _TIMED.isdisjoint(container.split(',')):
            ordered = _are_times_of_display(times, packets, shown, context)
            if ordered:
                shown.sort(key=times.__getitem__)
        if ordered:
            index = FrameIndex(packets, shown)
            index.keys = sorted(index.numbers[position] for position in starts if position in index.numbers)
    index = index or _by_decoding(packets, context)
    index.times, index.rising = times, rising
    return index


def frame_rate(index: FrameIndex, stream: av.video.stream.VideoStream) -> float:
    """Find the mean number of frames per second; 0 if neither the header nor the packets tell it.

    The rate in the header, which in some containers is that of the shortest pause, is taken if it agrees with the times
    of the packets, which are rounded, to 2 %.

    Args:
        index (FrameIndex): The frames.
        stream (av.video.stream.VideoStream): The stream that they are from.
    """
    stated = float(stream.average_rate or 0)
    found = [index.times[position] for position in index.shown]
    if len(found) < 2 or not index.rising or None in found or len(set(found)) < len(found):
        return stated
    span, unit = max(found) - min(found), stream.time_base
    measured = (len(found) - 1) * unit.denominator / (span * unit.numerator)
    return stated if stated and abs(measured / stated - 1) <= 0.02 else measured


def decode_from(
    context: av.VideoCodecContext, packets: Sequence[av.Packet], start: int, wanted: dict[int, int] | None = None
) -> Iterator[av.VideoFrame]:
    """Decode packets from position ``start`` on.

    Args:
        context (av.VideoCodecContext): The decoder.
        packets (Sequence[av.Packet]): In the order of decoding.
        start (int): Position of the first packet.
        wanted (dict[int, int] | None): Positions whose frames are needed: of the other packets, those that no frame
            depends on are skipped. None: all.

    Raises:
        av.error.FFmpegError: a packet cannot be decoded.
    """
    _restart(context)
    # codecs without reordering have few such frames, and dav1d takes the first setting for all
    skips = wanted is not None and _reorders(context)
    for position in range(start, len(packets)):
        if skips:
            context.skip_frame = 'DEFAULT' if position in wanted else 'NONREF'
        yield from context.decode(packets[position])
    context.skip_frame = 'DEFAULT'
    yield from context.decode(None)


def _reorders(context: av.VideoCodecContext) -> bool:
    """Whether the codec can show frames in another order than that of decoding."""
    return bool(context.codec.properties & Properties.REORDER.value)


def _restart(context: av.VideoCodecContext) -> None:
    """Forget what was decoded, but not how many frames wait for earlier ones."""
    depth = context.reorder_depth
    context.flush_buffers()
    context.reorder_depth = max(depth, context.reorder_depth)
    context.skip_frame = 'DEFAULT'


def _are_times_of_display(
    times: Sequence[int | None], packets: Sequence[av.Packet], shown: Sequence[int], context: av.VideoCodecContext
) -> bool:
    """Whether the times of packets can be those of display."""
    visible = [times[i] for i in shown]
    if None in times or len(set(visible)) < len(visible) or min(times) < times[0]:
        # the first frame decoded is the first shown, or frames before it lack what they depend on
        return False
    if context.reorder_depth and _rise(visible):
        # frames may change their order and none does: a muxer may have written times of decoding
        _restart(context)
        found: list[int] = []
        # a packet that is damaged is told when its frame is asked for
        with suppress(av.error.FFmpegError):
            for packet in packets[:_TRIED]:
                found += [frame.pts for frame in context.decode(packet)]
        return found == sorted(found)
    return True


def _rise(times: Sequence[int | None]) -> bool:
    """Whether each time is later than the one before; None is no time."""
    known = [time for time in times if time is not None]
    return all(map(lt, known, known[1:]))


def _by_decoding(packets: Sequence[av.Packet], context: av.VideoCodecContext) -> FrameIndex:
    """Number the frames as they come out of the decoder."""
    shown, keys, faults, size = [], [], [], 0
    kept: dict[int, av.VideoFrame] = {}
    fields = False
    _restart(context)
    for position, packet in enumerate((*packets, None)):
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError as error:
            # a file may start with what depends on earlier frames
            if shown or packet is None or packet.is_keyframe:
                faults.append((position, error))
            continue
        for frame in frames:
            size += sum(plane.buffer_size for plane in frame.planes)
            if size <= _KEPT_BYTES:
                kept[len(shown)] = frame
            if frame.key_frame and packets[frame.pts].is_keyframe:
                keys.append(len(shown))
            fields |= frame.interlaced_frame
            shown.append(frame.pts)
    if faults and not shown:
        raise faults[0][1]
    lost = [position for position, _ in faults]
    # a field of an interlaced frame may have a packet of its own
    if not fields:
        lost += set(range(sorted(shown)[1] if len(shown) > 1 else 0, len(packets))).difference(shown)
    broken = next((n for n, position in enumerate(shown) if position >= min(lost)), len(shown)) if lost else None
    return FrameIndex(packets, shown, keys, broken, kept if size <= _KEPT_BYTES else {})
