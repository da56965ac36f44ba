"""Audio files, waveforms and spectrograms."""

from apa_lightning.audio.features import MelSpec, fbank, log_mel, mel_basis
from apa_lightning.audio.folder import AUDIO_SUFFIXES, OTHER_SUFFIXES, FolderAudio, find_audio
from apa_lightning.audio.io import (
    SAMPLE_RATES,
    AudioFile,
    AudioInfo,
    AudioSource,
    load_audio,
    probe_audio,
    save_audio,
)
from apa_lightning.audio.waveform import channels_cancel, extremes, fit_length, normalize_level, resample, to_mono
from apa_lightning.errors import AudioError

__all__ = [
    "AUDIO_SUFFIXES",
    "OTHER_SUFFIXES",
    "SAMPLE_RATES",
    "AudioError",
    "AudioFile",
    "AudioInfo",
    "AudioSource",
    "FolderAudio",
    "MelSpec",
    "channels_cancel",
    "extremes",
    "fbank",
    "find_audio",
    "fit_length",
    "load_audio",
    "log_mel",
    "mel_basis",
    "normalize_level",
    "probe_audio",
    "resample",
    "save_audio",
    "to_mono",
]
