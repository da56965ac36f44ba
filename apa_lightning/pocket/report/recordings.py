"""Real recordings as clips of the pocket backbone's window."""

from pathlib import Path

import torch

from apa_lightning.audio import AUDIO_SUFFIXES, find_audio, load_audio, probe_audio, resample, to_mono
from apa_lightning.errors import InputError
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


def load_recordings(folder: Path, samples: int, most: int = 3) -> Clips:
    """Recordings cut into windows that do not overlap; what remains at the end is left out.

    Args:
        folder: Folder with sound files.
        samples: Length of a window at 16 kHz.
        most: Windows of one file.

    Returns:
        Mono clips at 16 kHz; a key is the file's name and the window's number.

    Raises:
        InputError: If there is no such folder, no sound file in it, none as long as a window, or one cannot be read.
    """
    windows, keys = [], []
    paths = find_recordings(folder)
    for path in paths:
        wanted = (most * samples + 1) / SAMPLE_RATE
        if probe_audio(path).seconds > wanted:
            waveform, rate = load_audio(path, seconds=wanted)
        else:
            waveform, rate = load_audio(path)
        mono = resample(to_mono(waveform), rate, SAMPLE_RATE)
        cut = mono[: len(mono) // samples * samples].view(-1, samples)[:most]
        windows.append(cut)
        keys += [f"{path.stem}-{i}" for i in range(len(cut))]
    if not keys:
        raise InputError(
            f"model.recordings: {folder}: none of {len(paths)} recordings lasts {samples / SAMPLE_RATE:.2f} s."
        )
    return Clips(torch.cat(windows), keys)
