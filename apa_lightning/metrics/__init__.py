"""Metrics of edits: scores of one edit against its prompt or its source, and distances between whole sets.

Every metric is a plain function for one clip or pair and an object, an :class:`EditMetric` or a :class:`SetMetric`. The
objects are torchmetrics; a configuration chooses them by class path under ``metrics:``.
"""

from apa_lightning.metrics.chroma import ChromaSimilarity, chroma, chroma_cosine, chroma_similarity
from apa_lightning.metrics.clap_scores import (
    ClapScore,
    DeltaClap,
    DirectionalClap,
    clap_score,
    delta_clap,
    directional_clap,
)
from apa_lightning.metrics.comparison import Clip, EditedClip, edited_clips, following_others, unmeasurable, with_floors
from apa_lightning.metrics.cqt import CqtCorrelation, cqt_correlation, top_cqt
from apa_lightning.metrics.edit_metric import EditMetric, Encoders
from apa_lightning.metrics.loudness import LoudnessCorrelation, loudness, loudness_correlation
from apa_lightning.metrics.lpaps import Lpaps, lpaps, stage_distance
from apa_lightning.metrics.melody import PitchAccuracy, pitch, pitch_accuracy
from apa_lightning.metrics.rhythm import BeatF1, Events, OnsetF1, beat_f1, beats, onset_f1, onsets
from apa_lightning.metrics.seams import SeamLevel, SeamSpectrum, seams
from apa_lightning.metrics.sets.embeddings import AudioEmbedding, ClapEmbedding, VggishEmbedding, load_embedding
from apa_lightning.metrics.sets.frechet import FadInfinity, FrechetAudioDistance, fad_infinity, frechet_audio_distance
from apa_lightning.metrics.sets.kernel import KernelAudioDistance, kernel_audio_distance
from apa_lightning.metrics.sets.set_metric import SetMetric, SetScore

__all__ = [
    "AudioEmbedding",
    "BeatF1",
    "ChromaSimilarity",
    "ClapEmbedding",
    "ClapScore",
    "Clip",
    "CqtCorrelation",
    "DeltaClap",
    "DirectionalClap",
    "EditMetric",
    "EditedClip",
    "Encoders",
    "Events",
    "FadInfinity",
    "FrechetAudioDistance",
    "KernelAudioDistance",
    "LoudnessCorrelation",
    "Lpaps",
    "OnsetF1",
    "PitchAccuracy",
    "SeamLevel",
    "SeamSpectrum",
    "SetMetric",
    "SetScore",
    "VggishEmbedding",
    "beat_f1",
    "beats",
    "chroma",
    "chroma_cosine",
    "chroma_similarity",
    "clap_score",
    "cqt_correlation",
    "delta_clap",
    "directional_clap",
    "edited_clips",
    "fad_infinity",
    "following_others",
    "frechet_audio_distance",
    "kernel_audio_distance",
    "load_embedding",
    "loudness",
    "loudness_correlation",
    "lpaps",
    "onset_f1",
    "onsets",
    "pitch",
    "pitch_accuracy",
    "seams",
    "stage_distance",
    "top_cqt",
    "unmeasurable",
    "with_floors",
]
