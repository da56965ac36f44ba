"""Real recordings as clips of the pocket backbone's window."""

import re
from pathlib import Path
from typing import Any

import torch

from apa_lightning.audio import AUDIO_SUFFIXES, find_audio, load_audio, probe_audio, resample, to_mono
from apa_lightning.errors import InputError
from apa_lightning.pocket.instrument_judge import NAMES
from apa_lightning.pocket.report.clips import Clips

SAMPLE_RATE = 16_000


def find_recordings(folder: Path) -> list[Path]:
    """The sound files of ``folder``, by name.

    Raises:
        InputError: If there is no such folder, or no sound file in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"model.recordings: {folder} is not a folder; give one with sound files ({', '.join(AUDIO_SUFFIXES)})."
        )
    if not (found := find_audio(folder)).files:
        kinds = found.left_out or ", ".join(AUDIO_SUFFIXES)
        raise InputError(f"model.recordings: {folder} holds no sound files that can be read ({kinds}).")
    return found.files


def load_recordings(folder: Path, samples: int, most: int = 3, overlap: float = 0.0) -> Clips:
    """Recordings cut into windows from their start; what remains at the end is left out.

    Args:
        folder: Folder with sound files.
        samples: Length of a window at 16 kHz.
        most: Windows of one file.
        overlap: Largest share of a window that it may have in common with the next, where a file is too short for ``most``
            windows one after the other. The windows then spread over the whole file.

    Returns:
        Mono clips at 16 kHz; a key is the file's name and the window's number, and the metadata's ``melody`` the file's name.

    Raises:
        InputError: If there is no such folder, no sound file in it, none as long as a window, or one cannot be read.
    """
    windows, keys = [], []
    metadata: list[dict[str, Any]] = []
    paths = find_recordings(folder)
    for path in paths:
        wanted = (most * samples + 1) / SAMPLE_RATE
        if probe_audio(path).seconds > wanted:
            waveform, rate = load_audio(path, seconds=wanted)
        else:
            waveform, rate = load_audio(path)
        mono = resample(to_mono(waveform), rate, SAMPLE_RATE)
        if len(mono) < samples:
            continue
        step = max((len(mono) - samples) // max(most - 1, 1), round(samples * (1 - overlap)))
        cut = mono.unfold(0, samples, min(step, samples))[:most]
        windows.append(cut)
        keys += [f"{path.stem}-{i}" for i in range(len(cut))]
        metadata += [{"melody": path.stem}] * len(cut)
    if not keys:
        raise InputError(
            f"model.recordings: {folder}: none of {len(paths)} recordings lasts {samples / SAMPLE_RATE:.2f} s."
        )
    return Clips(torch.cat(windows), keys, metadata=metadata)


def known_instrument(name: str) -> str | None:
    """Which of the eight instruments a recording's name starts with, as "acoustic guitar" of ``acoustic_guitar_0``; None of another."""
    words = " ".join(re.findall("[a-z]+", name.lower()))
    return next((known for known in NAMES if f"{words} ".startswith(f"{known} ")), None)


def of_known_instrument(recordings: Clips) -> dict[int, str]:
    """Number and instrument of the recordings whose key starts with the name of one of the eight."""
    named = {i: known_instrument(key) for i, key in enumerate(recordings.keys)}
    return {i: name for i, name in named.items() if name}
