"""MPEG audio (MP3, MP2): streams whose length libsndfile can only estimate, and files of several recordings.

libsndfile takes the number of frames from a Xing or Info header in the first frame. Without one it divides the size of the file
by the bit rate of the first frame and reads no further than this estimate, so it loses most of a variable-rate stream that starts
quietly. It also ignores everything after the frames that such a header counts, as in MP3 files joined with `cat`. This module
counts the frames and gives each recording an Info header with their number.
"""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from apa_lightning.errors import AudioError

_RATES = (44_100, 48_000, 32_000)
_KBPS = {
    (1, 1): range(0, 449, 32),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by MPEG version (2 also stands for 2.5) and layer; layers 2 and 3 of MPEG-2 share a row."""
_SYNC = re.compile(rb"\xff[\xe2-\xff]")
_ID3V1_BYTES = 128
_ENOUGH_FOR_INFO = 0x90
"""A bit rate, in the third byte of a header, whose frames have room for an Info header at every sample rate."""


class Frame(NamedTuple):
    """One frame of MPEG audio.

    Attributes:
        start: Its first byte.
        end: The first byte after it.
        kind: Version, layer, sample rate in Hz and whether it is mono: the same in all frames of a recording.
        counted: Frames after this one, where it is a Xing or Info header that counts them.
        is_sound: False for a Xing, Info or VBRI header.
    """

    start: int
    end: int
    kind: tuple[int, int, int, bool]
    counted: int
    is_sound: bool


def skip_id3(file: BinaryIO, at: int = 0) -> int:
    """The first byte after the ID3v2 tags that start at ``at``."""
    while True:
        file.seek(at)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            return at
        size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
        at += 10 + size + (10 if tag[5] & 0x10 else 0)


def mpeg_recordings(file: BinaryIO, size: int, start: int, name: str) -> list[bytes] | None:
    """The recordings of an MPEG stream, each with a header that tells its length.

    Args:
        file: The stream.
        size: Its size in bytes.
        start: The first byte after the ID3v2 tags.
        name: Its name, for messages.

    Returns:
        Whole streams; or None where libsndfile knows the length, or this is not MPEG audio.

    Raises:
        AudioError: If a header counts more frames than there are.
    """
    file.seek(start)
    head = file.read(1 << 16)
    first = next(_frames(head, 0), None)
    if first is None:
        return None
    sound_bytes = _info(head, first)[1] if first.counted else 0
    if first.counted and size - start - sound_bytes in (0, _ID3V1_BYTES, size - start):
        return None
    file.seek(0)
    data = file.read()
    recordings: list[list[Frame]] = []
    room = 0
    for frame in _frames(data, start):
        if room == 0 or frame.counted or frame.kind != recordings[-1][-1].kind:
            recordings.append([])
            room = frame.counted + 1 if frame.counted else -1
        recordings[-1].append(frame)
        room -= 1
    return [_stream(data, frames, name) for frames in recordings if any(frame.is_sound for frame in frames)]


def _stream(data: bytes, frames: list[Frame], name: str) -> bytes:
    """The frames of one recording, with an Info frame that counts them."""
    sound = [data[frame.start : frame.end] for frame in frames if frame.is_sound]
    first = frames[0]
    if first.counted > len(sound) + 1:  # the last one may be incomplete, and some encoders count the header too
        raise AudioError(
            f"{name}: truncated: the header promises {first.counted} MPEG frames, {len(sound)} are there. "
            "Copy or export the file again."
        )
    if first.counted:
        header = data[first.start : first.end]
    else:  # Layers I and II have no such frame; their bit rate is constant, and libsndfile's estimate holds
        header = _info_frame(sound[0][:4], len(sound)) if first.kind[1] == 3 else b""
    return header + b"".join(sound)


def _frames(data: bytes, at: int) -> Iterator[Frame]:
    """The whole frames of a stream; tags and other bytes between them are left out."""
    kind = None
    while True:
        frame = _parse(data, at)
        if frame is None or frame.end > len(data) or frame.kind != kind:
            if (frame := _synchronize(data, skip_id3(io.BytesIO(data), at))) is None:
                return
            kind = frame.kind
        yield frame
        at = frame.end


def _synchronize(data: bytes, at: int) -> Frame | None:
    """The next frame that two of its kind follow."""
    for match in _SYNC.finditer(data, at):
        frame = following = _parse(data, match.start())
        for _ in range(2):
            following = following and _parse(data, following.end)
        if frame and following and following.kind == frame.kind:
            return frame
    return None


def _parse(data: bytes, at: int) -> Frame | None:
    """The frame that starts at ``at``, or None where no header of a known length is."""
    head = int.from_bytes(data[at : at + 4], "big")
    version, layer, kbps, rate = head >> 19 & 3, 4 - (head >> 17 & 3), head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or kbps in (0, 15) or rate == 3:
        return None
    mpeg, hertz = (1 if version == 3 else 2), _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1_000 * _KBPS[mpeg, layer if mpeg == 1 else min(layer, 2)][kbps]
    padding, mono = head >> 9 & 1, head >> 6 & 3 == 3
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = (144 if layer == 2 or mpeg == 1 else 72) * bits // hertz + padding
    frame = Frame(at, at + length, (version, layer, hertz, mono), 0, True)
    tag = at + _info_place(frame)
    is_sound = layer != 3 or (data[tag : tag + 4] not in (b"Xing", b"Info") and data[at + 36 : at + 40] != b"VBRI")
    return frame if is_sound else frame._replace(counted=_info(data, frame)[0], is_sound=False)


def _info_place(frame: Frame) -> int:
    """Bytes from the start of a frame to its Xing or Info header: header and side information lie before it."""
    version, _, _, mono = frame.kind
    return 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))


def _info(data: bytes, frame: Frame) -> tuple[int, int]:
    """Frames and bytes that a Xing or Info header counts; 0 where it does not say."""
    at = frame.start + _info_place(frame)
    if data[at : at + 4] not in (b"Xing", b"Info"):
        return 0, 0
    flags, *values = (int.from_bytes(data[i : i + 4], "big") for i in (at + 4, at + 8, at + 12))
    frames = values.pop(0) if flags & 1 else 0
    return frames, values[0] if flags & 2 else 0


def _info_frame(header: bytes, count: int) -> bytes:
    """An Info frame for a recording of ``count`` frames, the first of which has this header."""
    header = bytes([header[0], header[1] | 1, _ENOUGH_FOR_INFO | header[2] & 0x0C, header[3]])  # no CRC, no padding
    frame = _parse(header, 0)
    assert frame is not None
    info = header.ljust(_info_place(frame), b"\0") + b"Info" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return info.ljust(frame.end, b"\0")
