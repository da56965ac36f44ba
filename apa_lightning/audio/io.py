"""Audio files: header checks, reading and atomic writing through soundfile.

A file that cannot be used raises :class:`AudioError` with the file, what is wrong and the way out, before anything large is
allocated.
"""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from apa_lightning.audio.ogg import before_last_page
from apa_lightning.audio.recordings import find_recordings
from apa_lightning.audio.waveform import extremes, resample, to_mono
from apa_lightning.errors import AudioError
from apa_lightning.utils.atomic_files import atomic_path

AudioSource = str | os.PathLike | bytes

MAX_CHANNELS = 8
SAMPLE_RATES = (4_000, 384_000)
# The densest real case, a FLAC of constant blocks, stores 65,535 frames in about 11 bytes.
MAX_FRAMES_PER_BYTE = 8_192
MPEG_FRAME = 1_152
# A frame of MP3 may use bits of many frames before it; a decoder that starts at it lacks them.
MPEG_LEAD = 32 * MPEG_FRAME
# A tag whose content is ten bytes of padding; libsndfile overlooks one without any.
EMPTY_ID3 = b"ID3\x03\0\0\0\0\0\x0a" + bytes(10)
WAY_OUT = "Give a WAV, FLAC, OGG, Opus, MP3 or AIFF file; `ffmpeg -i INPUT OUTPUT.flac` converts most others."


def _name(source: AudioSource) -> str:
    return "audio" if isinstance(source, bytes) else str(source)


@dataclass(frozen=True)
class AudioInfo:
    """The length and form of a recording: ``frames`` per channel, ``sample_rate`` in Hz, ``channels``."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def _recordings(source: AudioSource) -> Sequence[AudioSource]:
    """What libsndfile can read whole: the source itself, or copies of the recordings in it."""
    name = _name(source)
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise FileNotFoundError(f"{name}: no such audio file.")
        if os.path.isdir(source):
            raise AudioError(f"{name}: is a folder, not an audio file.")
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    if size == 0:
        raise AudioError(f"{name}: the file is empty. {WAY_OUT}")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            return find_recordings(file, size, name) or [source]
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror}).") from None


def _unmistakable(source: AudioSource) -> str | io.BytesIO:
    """What libsndfile opens: a path, or bytes.

    libsndfile takes an MP3 without an ID3 tag for Sound Designer II where macOS has left ``._NAME`` next to it, and MP3 bytes
    where the working folder holds a file ``._``. An empty tag in front of them decides.
    """
    if not isinstance(source, bytes):
        folder, file = os.path.split(os.fspath(source))
        shadows = (os.path.join(folder, f"._{file}"), os.path.join(folder, ".AppleDouble", file))
        if not any(map(os.path.exists, shadows)):
            return os.fspath(source)
        source = Path(source).read_bytes()
    is_bare_mpeg = len(source) > 1 and source[0] == 0xFF and source[1] & 0xE0 == 0xE0
    return io.BytesIO(EMPTY_ID3 + source if is_bare_mpeg else source)


@contextmanager
def _open(source: AudioSource, name: str) -> Iterator[soundfile.SoundFile]:
    """Yield the opened file; every library error becomes an :class:`AudioError`."""
    try:
        with soundfile.SoundFile(_unmistakable(source)) as file:
            yield file
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw files need a sample rate
        reason = error.error_string.rstrip(".") if isinstance(error, soundfile.LibsndfileError) else error
        raise AudioError(f"{name}: not a readable audio file ({reason}). {WAY_OUT}") from None


def _probe(source: AudioSource, name: str) -> AudioInfo:
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    with _open(source, name) as file:
        frames, rate, channels = file.frames, file.samplerate, file.channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: has {channels} channels; 1 to {MAX_CHANNELS} are supported. Mix it down first.")
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        raise AudioError(
            f"{name}: has a sample rate of {rate} Hz; {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]} Hz are "
            "supported. Resample or re-export it."
        )
    if frames <= 0:
        raise AudioError(f"{name}: contains no audio (0 frames).")
    if frames > size * MAX_FRAMES_PER_BYTE:
        raise AudioError(
            f"{name}: its header claims {frames} frames, more than {size} bytes can hold: a damaged header."
        )
    return AudioInfo(frames, rate, channels)


def _joined(infos: Sequence[AudioInfo]) -> AudioInfo:
    """Recordings one after another, at the sample rate and with the channels of the first."""
    rate = infos[0].sample_rate
    return replace(infos[0], frames=sum(_frames_at(info, rate) for info in infos))


def _frames_at(info: AudioInfo, sample_rate: int) -> int:
    """Frames of a recording after resampling."""
    return -(-info.frames * sample_rate // info.sample_rate)


class AudioFile:
    """A recording whose headers are checked, to be decoded in parts.

    Args:
        source: A path, or the bytes of a file; more than the header is read only where it does not tell the length.

    Attributes:
        info: Length and form. Several recordings in one file follow one another, at the sample rate and with the channels of
            the first.

    Raises:
        FileNotFoundError: If there is no such file.
        AudioError: If it is empty, not audio, ends before the length that its header tells, has no frames, or has channels
            or a sample rate outside the supported range.
    """

    def __init__(self, source: AudioSource):
        self._name, self._parts = _name(source), _recordings(source)
        self._infos = [_probe(one, self._name) for one in self._parts]
        self.info = _joined(self._infos)

    def read(
        self, *, start: float = 0.0, seconds: float | None = None, max_seconds: float = 1_800.0
    ) -> tuple[Tensor, int]:
        """Decode the recording, whole or from ``start`` for ``seconds``.

        Returns:
            waveform (C, S) float32, and its sample rate in Hz.

        Raises:
            AudioError: If it is cut in the middle, has NaN or Inf samples, or what is wanted is longer than ``max_seconds``.
        """
        name, info = self._name, self.info
        first = round(start * info.sample_rate)
        count = info.frames - first if seconds is None else min(info.frames - first, round(seconds * info.sample_rate))
        if count <= 0:
            raise AudioError(f"{name}: lasts {info.seconds:.2f} s; nothing is left after start={start:g} s.")
        if (wanted := count / info.sample_rate) > max_seconds:
            raise AudioError(
                f"{name}: lasts {wanted:.0f} s; the limit is {max_seconds:g} s. Cut it, or raise max_seconds."
            )
        pieces, offset = [], 0
        for one, about in zip(self._parts, self._infos, strict=True):
            length = _frames_at(about, info.sample_rate)
            low, high = max(0, first - offset), min(length, first + count - offset)
            offset += length
            if low < high and about.sample_rate == info.sample_rate:
                pieces.append(_decode(one, name, low, high - low))
            elif low < high:
                whole = _decode(one, name, 0, about.frames)
                pieces.append(resample(whole, about.sample_rate, info.sample_rate)[:, low:high])
        pieces = [
            one if len(one) == info.channels else to_mono(one).expand(info.channels, -1).clone() for one in pieces
        ]
        waveform = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
        if not all(map(math.isfinite, extremes(waveform))):
            raise AudioError(f"{name}: contains NaN or infinite samples. Export the file again.")
        return waveform, info.sample_rate


def probe_audio(source: AudioSource) -> AudioInfo:
    """Length and form of a recording; the arguments and errors are those of :class:`AudioFile`."""
    return AudioFile(source).info


def load_audio(
    source: AudioSource, *, start: float = 0.0, seconds: float | None = None, max_seconds: float = 1_800.0
) -> tuple[Tensor, int]:
    """Decode ``source``, whole or from ``start`` for ``seconds``: waveform (C, S) float32, and its sample rate in Hz.

    Raises:
        FileNotFoundError, AudioError: As :class:`AudioFile` and :meth:`AudioFile.read`.
    """
    return AudioFile(source).read(start=start, seconds=seconds, max_seconds=max_seconds)


def _decode(source: AudioSource, name: str, first: int, count: int) -> Tensor:
    """Frames of one recording: (C, S)."""
    with _open(source, name) as file:
        is_mpeg = file.subtype.startswith("MPEG")
        start = max(0, first - MPEG_LEAD) if is_mpeg else first
        if first and file.subtype == "VORBIS":
            with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as ogg:
                start = min(first, before_last_page(ogg))
        if start:
            file.seek(start)
        samples = file.read(first - start + count, dtype="float32", always_2d=True)[first - start :]
    # An encoder may count its header as a frame, and a decoder drops an incomplete last frame.
    spare = MPEG_FRAME if is_mpeg else 0
    if len(samples) + spare < count or not len(samples):
        raise AudioError(
            f"{name}: truncated: {len(samples)} of {count} frames could be read. Copy or export the file again."
        )
    return torch.from_numpy(np.ascontiguousarray(samples.T))


def save_audio(path: str | os.PathLike, waveform: Tensor, sample_rate: int) -> None:
    """Write ``waveform`` (S,) or (C, S) to ``path`` atomically; the suffix names the format.

    WAV is 16-bit PCM, or floating point where samples exceed 1.

    Raises:
        AudioError: If samples are NaN or infinite, if they exceed 1 and the format is not WAV, or if soundfile cannot write it.
    """
    suffix = Path(path).suffix[1:].upper()
    if suffix not in soundfile.available_formats():
        raise AudioError(f"{path}: cannot write this format. Use .wav, .flac, .ogg or .mp3.")
    if not all(map(math.isfinite, extremes(waveform))):
        raise AudioError(f"{path}: the waveform to write contains NaN or infinite samples.")
    samples = waveform.detach().float().cpu()
    exceeds = bool((samples.abs() > 1).any())
    if exceeds and suffix != "WAV":
        raise AudioError(f"{path}: {suffix} cannot hold samples above 1, as in this recording. Name the file .wav.")
    encoded = io.BytesIO()  # soundfile reports a full disk as "System error"; writing bytes says what it is
    soundfile.write(encoded, samples.numpy().T, sample_rate, format=suffix, subtype="FLOAT" if exceeds else None)
    content = encoded.getbuffer()
    if exceeds:  # libsndfile's PEAK chunk holds the time of writing; the same samples shall give the same bytes
        time = bytes(content[:128]).index(b"PEAK") + 12
        content[time : time + 4] = bytes(4)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
