"""Reading of SoundFont 2 and 3 files: the recorded samples of a program, a key and a velocity, and their settings.

Own code after the SoundFont Technical Specification 2.04. The synthesizers that pip can install without a compiler were
tried first: symusic 0.5.8 ignores velocity, controllers, pitch bends and most of the volume envelope, so nothing played
on it has dynamics; tinysoundfont needs PortAudio's headers to install.
"""

import io
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from apa_lightning.errors import InputError
from datamodules.music.sound import modulators

# Generator numbers (section 8.1.2) that this reader applies.
START, END, LOOP_START, LOOP_END, START_COARSE = 0, 1, 2, 3, 4
MOD_LFO_PITCH, VIB_LFO_PITCH, MOD_ENV_PITCH, FILTER_CUTOFF, FILTER_Q = 5, 6, 7, 8, 9
MOD_ENV_FILTER, END_COARSE, PAN = 11, 12, 17
MOD_LFO_DELAY, MOD_LFO_RATE, VIB_LFO_DELAY, VIB_LFO_RATE = 21, 22, 23, 24
MOD_ATTACK, MOD_HOLD, MOD_DECAY, MOD_SUSTAIN = 26, 27, 28, 29
DELAY, ATTACK, HOLD, DECAY, SUSTAIN, RELEASE, KEY_TO_HOLD, KEY_TO_DECAY = 33, 34, 35, 36, 37, 38, 39, 40
INSTRUMENT, KEY_RANGE, VELOCITY_RANGE, LOOP_START_COARSE = 41, 43, 44, 45
ATTENUATION, LOOP_END_COARSE, COARSE_TUNE, FINE_TUNE, SAMPLE, SAMPLE_MODES = 48, 50, 51, 52, 53, 54
SCALE_TUNING, EXCLUSIVE_CLASS, ROOT_KEY = 56, 57, 58

_DEFAULTS = {
    FILTER_CUTOFF: 13500, MOD_LFO_DELAY: -12000, VIB_LFO_DELAY: -12000, MOD_ATTACK: -12000, MOD_HOLD: -12000,
    MOD_DECAY: -12000, DELAY: -12000, ATTACK: -12000, HOLD: -12000, DECAY: -12000, RELEASE: -12000,
    SCALE_TUNING: 100, ROOT_KEY: -1, -2: 960, -3: 1200,
}  # fmt: skip
# A preset's generators are added to the instrument's, except these, which only an instrument may set.
_INSTRUMENT_ONLY = {-1, 0, 1, 2, 3, 4, 12, 45, 46, 47, 50, 54, 57, 58, KEY_RANGE, VELOCITY_RANGE, INSTRUMENT, SAMPLE}
_MODULATORS = -1  # Key of a zone's modulators, next to its generators.
VELOCITY_DEPTH = -2  # Centibels that the softest note is quieter; a modulator may change it.
BRIGHTNESS = -3  # Cents by which the softest note's filter closes; 0 where the file rules this itself.
# Tables of a file and the layout of their rows (section 7).
_LAYOUTS = {
    b"phdr": "<20sHHHIII", b"pbag": "<HH", b"pgen": "<HH", b"pmod": "<HHhHH",
    b"inst": "<20sH", b"ibag": "<HH", b"igen": "<HH", b"imod": "<HHhHH", b"shdr": "<20sIIIIIBbHH",
}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """One sample of a program with its settings."""

    settings: dict[int, float] = field(hash=False)  # Generator number to value, defaults filled in
    sample: int  # Number of the sample in the file

    def get(self, generator: int) -> float:
        """The value of `generator`, or its default."""
        return self.settings.get(generator, _DEFAULTS.get(generator, 0))


@dataclass(frozen=True)
class Sample:
    """A recorded sample."""

    data: np.ndarray  # float32 (N,)
    loop_start: int  # Samples
    loop_end: int  # Samples
    rate: int  # Hz
    root: int  # MIDI key
    correction: int  # Cents


class SoundFont:
    """A SoundFont file opened for reading; samples stay on disk until they are asked for.

    Args:
        path: An .sf2 or .sf3 file.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is not a SoundFont.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"soundfonts: '{path}' does not exist. Give the path of an .sf2 or .sf3 file.")
        try:
            self._parse()
        except (struct.error, ValueError, KeyError, IndexError) as error:
            raise InputError(f"soundfonts: '{path}' is not a SoundFont 2 or 3 file ({error}).") from None

    def _parse(self) -> None:
        content = np.memmap(self.path, mode="r")
        if bytes(content[:4]) != b"RIFF" or bytes(content[8:12]) != b"sfbk":
            raise ValueError("no RIFF sfbk header")
        chunks, at = {}, 12
        while at + 8 <= len(content):
            name, length = struct.unpack("<4sI", content[at : at + 8].tobytes())
            if name == b"LIST":
                at += 12  # Step into the list: its chunks have names of their own.
                continue
            chunks[name] = content[at + 8 : at + 8 + length]
            if name == b"smpl" and len(chunks[name]) < length:
                raise ValueError("it is cut short")
            at += 8 + length
            at += (
                length % 2 and at < len(content) and content[at] == 0
            )  # Some writers forget the pad byte of odd chunks.
        if lacking := {b"smpl", *_LAYOUTS} - set(chunks):
            raise ValueError(f"it lacks {', '.join(sorted(name.decode() for name in lacking))}")
        tables = {name: list(struct.iter_unpack(layout, chunks[name].tobytes())) for name, layout in _LAYOUTS.items()}
        self._data, self._samples = chunks[b"smpl"], tables[b"shdr"]
        zones = _zones(tables[b"ibag"], tables[b"igen"], tables[b"imod"])
        self._instruments = [zones[start:stop] for (_, start), (_, stop) in pairwise(tables[b"inst"])]
        zones = _zones(tables[b"pbag"], tables[b"pgen"], tables[b"pmod"])
        self._programs = {(a[2], a[1]): zones[a[3] : b[3]] for a, b in pairwise(tables[b"phdr"])}

    @lru_cache(maxsize=20_000)  # noqa: B019 - one SoundFont lives as long as its process
    def regions(self, program: int, key: int, velocity: int, drums: bool = False) -> tuple[Region, ...]:
        """The regions that sound for one note; of drums, `program` is the kit, and an unknown one means the standard kit.

        Raises:
            InputError: If the file has no such program.
        """
        bank = 128 if drums else 0
        zones = self._programs.get((bank, program)) or (self._programs.get((128, 0)) if drums else None)
        if zones is None:
            why = f"has no program {program} in bank {bank}. Use a General MIDI one."
            raise InputError(f"soundfonts: '{self.path}' {why}")
        found = []
        for preset in _matching(zones, INSTRUMENT, key, velocity):
            for zone in _matching(self._instruments[preset[INSTRUMENT]], SAMPLE, key, velocity):
                settings = {**_DEFAULTS, **zone}
                for generator, value in preset.items():
                    if generator not in _INSTRUMENT_ONLY:
                        settings[generator] = settings.get(generator, 0) + value
                _modulate(settings, zone[_MODULATORS] + preset[_MODULATORS], key, velocity)
                found.append(Region(settings, zone[SAMPLE]))
        return tuple(found)

    @lru_cache(maxsize=2_000)  # noqa: B019
    def sample(self, number: int) -> Sample:
        """The audio and pitch of sample `number`."""
        _, start, end, loop_start, loop_end, rate, root, correction, _, kind = self._samples[number]
        if kind & 0x10:  # SoundFont 3: start and end are bytes of an Ogg stream, loop points count from its start.
            import soundfile

            data, rate = soundfile.read(io.BytesIO(self._data[start:end].tobytes()), dtype="float32")
        else:
            data = self._data[2 * start : 2 * end].view("<i2").astype(np.float32) / 32768
            loop_start, loop_end = loop_start - start, loop_end - start
        return Sample(data, loop_start, loop_end, rate, root if root < 128 else 60, correction)


def _modulate(settings: dict[int, Any], found: tuple[modulators.Modulator, ...], key: int, velocity: int) -> None:
    """Add what velocity and key do to a region's settings."""
    for modulator in found:
        if modulators.identity(modulator) == modulators.VELOCITY_TO_ATTENUATION:
            settings[VELOCITY_DEPTH] = modulator[2]
            continue
        if modulator[0] & 0xFF == modulators.VELOCITY and modulator[1] == FILTER_CUTOFF:
            settings[BRIGHTNESS] = 0
        settings[modulator[1]] = settings.get(modulator[1], 0) + modulators.offset(modulator, key, velocity)


def _zones(bags: list[tuple], generators: list[tuple], modulations: list[tuple]) -> list[dict[int, Any]]:
    """One dictionary of generators per bag, values as signed numbers (ranges as low + 256 * high)."""
    zones = []
    for (start, first), (stop, last) in pairwise(bags):
        zone: dict[int, Any] = {_MODULATORS: tuple(m[:4] for m in modulations[first:last])}
        for generator, amount in generators[start:stop]:
            unsigned = generator in (KEY_RANGE, VELOCITY_RANGE, INSTRUMENT, SAMPLE) or amount < 0x8000
            zone[generator] = amount if unsigned else amount - 0x10000
        zones.append(zone)
    return zones


def _matching(zones: list[dict[int, Any]], target: int, key: int, velocity: int) -> list[dict[int, Any]]:
    """Zones for this key and velocity, the global zone (a first one without a target) merged in."""
    common = zones[0] if zones and target not in zones[0] else {}
    shared, found = common.get(_MODULATORS, ()), []
    for zone in zones:
        if target in zone:
            zone = {**common, **zone, _MODULATORS: modulators.merged(shared, zone[_MODULATORS])}
            bounds = ((zone.get(KEY_RANGE, 0x7F00), key), (zone.get(VELOCITY_RANGE, 0x7F00), velocity))
            if all(both & 0xFF <= value <= both >> 8 for both, value in bounds):
                found.append(zone)
    return found


@lru_cache(maxsize=8)
def open_soundfont(path: Path | None = None) -> SoundFont:
    """The SoundFont at `path`, opened once per process; without a path the one that pretty_midi ships.

    Raises:
        InputError: If no path is given and pretty_midi is not installed.
    """
    return SoundFont(path or default_soundfont())


def default_soundfont() -> Path:
    """The General MIDI SoundFont (TimGM6mb, 6 MB) inside the installed pretty_midi; the package is not imported."""
    from importlib.util import find_spec

    spec = find_spec("pretty_midi")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.sf2")):
            return path
    raise InputError(
        "soundfonts: rendering needs a General MIDI SoundFont and pretty_midi, which ships one, is not installed. "
        "Run: pip install 'apa_lightning[render]', or give --soundfonts your.sf2"
    )
