"""What an edit is judged by: figures of a clip, of a clip against its source, and of whole sets.

Every figure has a plain function for one clip or pair and a torchmetric that averages it over clips and processes.
"""

from apa_lightning.metrics.chroma import ChromaSimilarity, chroma, chroma_cosine
from apa_lightning.metrics.clap_scores import (
    ClapScore,
    DeltaClap,
    DirectionalClap,
    clap_score,
    delta_clap,
    directional_clap,
)
from apa_lightning.metrics.clip_mean import ClipMean, SourceMean, check_pairs, unmeasurable
from apa_lightning.metrics.cqt import CqtCorrelation, cqt_correlation, top_cqt
from apa_lightning.metrics.loudness import LoudnessCorrelation, loudness, loudness_correlation
from apa_lightning.metrics.lpaps import Lpaps, lpaps, stage_distance
from apa_lightning.metrics.melody import PitchAccuracy, pitch, pitch_accuracy
from apa_lightning.metrics.rhythm import BeatF1, Events, OnsetF1, beat_f1, beats, onset_f1, onsets
from apa_lightning.metrics.sets.embeddings import AudioEmbedding, ClapEmbedding, VggishEmbedding, load_embedding
from apa_lightning.metrics.sets.frechet import FrechetAudioDistance, fad_infinity, frechet_audio_distance
from apa_lightning.metrics.sets.kernel import KernelAudioDistance, kernel_audio_distance
from apa_lightning.metrics.sets.set_metric import SetFigure, SetMetric

__all__ = [
    "AudioEmbedding",
    "BeatF1",
    "ChromaSimilarity",
    "ClapEmbedding",
    "ClapScore",
    "ClipMean",
    "CqtCorrelation",
    "DeltaClap",
    "DirectionalClap",
    "Events",
    "FrechetAudioDistance",
    "KernelAudioDistance",
    "LoudnessCorrelation",
    "Lpaps",
    "OnsetF1",
    "PitchAccuracy",
    "SetFigure",
    "SetMetric",
    "SourceMean",
    "VggishEmbedding",
    "beat_f1",
    "beats",
    "check_pairs",
    "chroma",
    "chroma_cosine",
    "clap_score",
    "cqt_correlation",
    "delta_clap",
    "directional_clap",
    "fad_infinity",
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
    "stage_distance",
    "top_cqt",
    "unmeasurable",
]
