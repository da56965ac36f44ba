"""Audio files: header checks, reading and atomic writing through soundfile (WAV, FLAC, OGG, MP3).

A file that cannot be used raises :class:`AudioError` with the file, what is wrong and the way out, before anything large is
allocated.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path

AudioSource = str | os.PathLike | bytes

MAX_CHANNELS = 8
SAMPLE_RATES = (4_000, 384_000)
# The densest real case, a FLAC of constant blocks, stores 65,535 frames in about 11 bytes.
MAX_FRAMES_PER_BYTE = 8_192


class AudioError(InputError):
    """An audio file or waveform that cannot be used."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: ``frames`` per channel, ``sample_rate`` in Hz, ``channels``."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def _name(source: AudioSource) -> str:
    return "audio" if isinstance(source, bytes) else str(source)


@contextmanager
def _open(source: AudioSource) -> Iterator[tuple[soundfile.SoundFile, int]]:
    """Yield the opened file and its size in bytes; every library error becomes an :class:`AudioError`."""
    name = _name(source)
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise FileNotFoundError(f"{name}: no such audio file.")
        if os.path.isdir(source):
            raise AudioError(f"{name}: is a folder, not an audio file.")
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    if size == 0:
        raise AudioError(f"{name}: the file is empty. Give a WAV, FLAC, OGG or MP3 file.")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)) as file:
            yield file, size
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{name}: not a readable audio file ({error.error_string.rstrip('.')}). Give a WAV, FLAC, OGG or MP3 file."
        ) from None


def _check_riff_length(source: AudioSource) -> None:
    """Refuse a WAV whose data chunk is shorter than its header says; libsndfile would return it short, silently."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
            if name != b"data":
                file.seek(length + length % 2, os.SEEK_CUR)
                continue
            # 2^32 - 1 is what a program writes that streams to a pipe: the length is unknown, not wrong.
            if file.tell() + length > size and length != 0xFFFFFFFF:
                raise AudioError(
                    f"{_name(source)}: truncated: the header promises {length} bytes of audio, "
                    f"{size - file.tell()} are there. Copy or export the file again."
                )
            return


def _check_header(file: soundfile.SoundFile, size: int, name: str) -> AudioInfo:
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


def probe_audio(source: AudioSource) -> AudioInfo:
    """Read only the header of ``source`` (a path, or the bytes of a file).

    Raises:
        FileNotFoundError: There is no such file.
        AudioError: Empty, not audio, truncated WAV, no frames, or channels / sample rate outside the supported range.
    """
    with _open(source) as (file, size):
        info = _check_header(file, size, _name(source))
    _check_riff_length(source)
    return info


def load_audio(
    source: AudioSource, *, start: float = 0.0, seconds: float | None = None, max_seconds: float = 1_800.0
) -> tuple[Tensor, int]:
    """Decode ``source``, whole or from ``start`` for ``seconds``.

    Returns:
        waveform (C, S) float32, and its sample rate in Hz.

    Raises:
        FileNotFoundError, AudioError: As :func:`probe_audio`; also cut in the middle, NaN or Inf samples, or longer
            than ``max_seconds``.
    """
    name = _name(source)
    info = probe_audio(source)
    wanted = info.seconds - start if seconds is None else min(seconds, info.seconds - start)
    if wanted <= 0:
        raise AudioError(f"{name}: lasts {info.seconds:.2f} s; nothing is left after start={start:g} s.")
    if wanted > max_seconds:
        raise AudioError(f"{name}: lasts {wanted:.0f} s; the limit is {max_seconds:g} s. Cut it, or raise max_seconds.")
    first = round(start * info.sample_rate)
    count = info.frames - first if seconds is None else min(info.frames - first, round(seconds * info.sample_rate))
    with _open(source) as (file, _):
        if first:
            file.seek(first)
        samples = file.read(count, dtype="float32", always_2d=True)
    if len(samples) < count:
        raise AudioError(
            f"{name}: truncated: {len(samples)} of {count} frames could be read. Copy or export the file again."
        )
    waveform = torch.from_numpy(samples.T.copy())
    if not torch.isfinite(waveform).all():
        raise AudioError(f"{name}: contains NaN or infinite samples. Export the file again.")
    return waveform, info.sample_rate


def save_audio(path: str | os.PathLike, waveform: Tensor, sample_rate: int) -> None:
    """Write ``waveform`` (S,) or (C, S) to ``path`` atomically; the suffix names the format (WAV as 16-bit PCM).

    Raises:
        AudioError: NaN or Inf samples, or a suffix that soundfile cannot write.
    """
    suffix = Path(path).suffix[1:].upper()
    if suffix not in soundfile.available_formats():
        raise AudioError(f"{path}: cannot write this format. Use .wav, .flac, .ogg or .mp3.")
    if not torch.isfinite(waveform).all():
        raise AudioError(f"{path}: the waveform to write contains NaN or infinite samples.")
    samples = waveform.detach().float().cpu().clamp(-1, 1)
    encoded = io.BytesIO()  # soundfile reports a full disk as "System error"; writing bytes says what it is
    soundfile.write(encoded, samples.T.numpy() if samples.ndim == 2 else samples.numpy(), sample_rate, format=suffix)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())
