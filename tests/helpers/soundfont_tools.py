"""A General MIDI SoundFont of a few kilobytes: every program is one looped sawtooth, every drum a click."""

import struct
from pathlib import Path

import numpy as np

RATE, CYCLE = 32_000, 128  # One cycle: 250 Hz, between B3 and C4.
_ROOT, _CENTS = 59, -21  # 250 Hz is 21 cents above B3 (246.94 Hz); the correction says so.


def write_soundfont(path: Path, generators: list[tuple[int, int]] | None = None, pad: bool = True) -> Path:
    """Writes the SoundFont.

    Args:
        path: where. generators: (number, value) pairs to add to the only instrument.
        pad: False leaves an odd data chunk without its pad byte, as some writers do.
    """
    cycle = np.linspace(-0.5, 0.5, CYCLE, endpoint=False)
    data = (np.tile(cycle, 16) * 32767).astype("<i2").tobytes() + (b"" if pad else b"\0")
    zone = [*(generators or []), (54, 1), (53, 0)]  # Looped; the sample comes last, as the format demands.

    def name(text: str) -> bytes:
        return text.encode().ljust(20, b"\0")

    programs = [(p, 0) for p in range(128)] + [(0, 128)]
    phdr = b"".join(struct.pack("<20sHHHIII", name("p"), p, bank, i, 0, 0, 0) for i, (p, bank) in enumerate(programs))
    phdr += struct.pack("<20sHHHIII", name("EOP"), 0, 0, len(programs), 0, 0, 0)
    tables = {
        b"phdr": phdr,
        b"pbag": b"".join(struct.pack("<HH", i, 0) for i in range(len(programs) + 1)),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HH", 41, 0) * len(programs) + bytes(4),
        b"inst": struct.pack("<20sH", name("i"), 0) + struct.pack("<20sH", name("EOI"), 1),
        b"ibag": struct.pack("<HHHH", 0, 0, len(zone), 0),
        b"imod": bytes(10),
        b"igen": b"".join(struct.pack("<HH", g, v & 0xFFFF) for g, v in zone) + bytes(4),
        b"shdr": struct.pack("<20sIIIIIBbHH", name("s"), 0, 16 * CYCLE, CYCLE, 15 * CYCLE, RATE, _ROOT, _CENTS, 0, 1)
        + struct.pack("<20sIIIIIBbHH", name("EOS"), *[0] * 9),
    }

    def chunk(kind: bytes, body: bytes, padded: bool = True) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + (b"\0" if padded and len(body) % 2 else b"")

    sound = chunk(b"LIST", b"sdta" + chunk(b"smpl", data, pad), pad)
    presets = chunk(b"LIST", b"pdta" + b"".join(chunk(kind, body) for kind, body in tables.items()))
    body = b"sfbk" + chunk(b"LIST", b"INFO" + chunk(b"ifil", struct.pack("<HH", 2, 4))) + sound + presets
    path.write_bytes(chunk(b"RIFF", body))
    return path
