"""What an edit is judged by: figures of a clip, of a clip against its source, and of whole sets.

Every figure has a plain function for one clip or pair and a torchmetric that averages it over clips and processes.
"""

from apa_lightning.metrics.chroma import ChromaSimilarity, chroma, chroma_cosine
from apa_lightning.metrics.clap_scores import ClapScore
from apa_lightning.metrics.clip_mean import ClipMean, SourceMean, check_pairs, unmeasurable
from apa_lightning.metrics.melody import PitchAccuracy, pitch, pitch_accuracy

__all__ = [
    "ChromaSimilarity",
    "ClapScore",
    "ClipMean",
    "PitchAccuracy",
    "SourceMean",
    "check_pairs",
    "chroma",
    "chroma_cosine",
    "pitch",
    "pitch_accuracy",
    "unmeasurable",
]
