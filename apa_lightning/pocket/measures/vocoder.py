"""Waveforms of the vocoder, alone and refined, from true mels and from the VAE's, compared with Griffin-Lim."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.backbones.vocoding import REFINEMENTS
from apa_lightning.metrics import Clip, chroma_similarity
from apa_lightning.pocket.assembly import load_frozen
from apa_lightning.pocket.measures.vae import through_vae
from apa_lightning.pocket.parts.vocoder import MEL_MEAN, MEL_SCALE, initialize, vocode
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.stft_loss import PEAK, log_spectral_distance, multi_resolution_distance
from apa_lightning.utils.pretrained import frozen
from apa_lightning.utils.rng import seeded

MOST_CLIPS, MOST_RECORDINGS, UNTRAINED_CLIPS, TIMED_RUNS = 32, 12, 12, 5
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multi-resolution STFT distance": multi_resolution_distance,
    "log-spectral distance in dB": log_spectral_distance,
}
SPEC = MelSpec()
#: The trained vocoder and the one with the weights that training starts from.
Both = tuple[Any, Any]


def measure(subject: Subject) -> list[Score]:
    """Measure distances, chroma similarity and the time for 10 s; pictures: ``vocoder.png``, ``vocoder_recordings.png``.

    The chain of VAE and vocoder is measured too where the folder holds the VAE. Recordings have no targets.
    """
    folder, seed = subject.folder, subject.seed
    both = load_frozen(folder, "vocoder"), untrained_like(folder, seed)
    vae = load_frozen(folder, "vae") if (folder / "vae").is_dir() else None
    scores = seconds_scores(subject, both)
    parts = [("", subject.clips.draw(MOST_CLIPS, seed))]
    if subject.recordings:
        parts.append((", real recordings", subject.recordings.draw(MOST_RECORDINGS, seed)))
    for of, chosen in parts:
        sources = Sources(chosen)
        scores += sources.scores(subject, of, sources.mels, both, targets=not of)
        if vae is not None:
            scores += sources.scores(subject, f", VAE and vocoder{of}", through_vae(vae, sources.mels), both)
        if subject.pictures is not None:
            _draw(subject.pictures / f"vocoder{'_recordings' if of else ''}.png", sources, both[0], seed)
    return scores


def untrained_like(folder: Path, seed: int) -> Any:
    """A vocoder of the same configuration with the weights that training starts from."""
    with seeded(seed):
        vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig.from_pretrained(folder / "vocoder"))
        initialize(vocoder, MEL_MEAN, MEL_SCALE)
    return frozen(vocoder)


class Sources:
    """Clips that the vocoder should reproduce: waveforms (N, S) with a peak of 0.5, and their mels (N, T, F)."""

    def __init__(self, clips: Clips):
        self.keys = clips.keys
        waveforms = normalize_level(clips.waveform.float(), PEAK)
        self.mels = log_mel(waveforms, SPEC)[:, 0]
        self.waveforms = waveforms[:, : self.mels.shape[1] * SPEC.hop_length]
        self.clips = [Clip(waveform, SPEC.sample_rate) for waveform in self.waveforms]

    def scores(self, subject: Subject, of: str, mels: Tensor, both: Both, targets: bool = False) -> list[Score]:
        """Both distances and the chroma similarity of waveforms from ``mels`` (N, T, F), by the vocoder alone and refined.

        The mels are those of the clips, true or reconstructed. The target of a distance is Griffin-Lim's from the same mels.
        """
        made, random = synthesize(both[0], mels), synthesize(both[1], mels[:UNTRAINED_CLIPS])
        classical = griffin_lim(mels, SPEC, seed=subject.seed)
        scores = self._compared(subject, of, made, random, classical, targets)
        made, random = (refine(waveforms, mels[: len(waveforms)]) for waveforms in (made, random))
        return scores + self._compared(subject, f", refined{of}", made, random, classical, targets)

    def _compared(
        self, subject: Subject, of: str, made: Tensor, random: Tensor, classical: Tensor, targets: bool
    ) -> list[Score]:
        scores = []
        for name, distance in DISTANCES.items():
            ours, theirs = (distance(waveforms, self.waveforms) for waveforms in (made, classical))
            without = distance(random, self.waveforms[: len(random)])
            compared = {
                "Griffin-Lim": float(theirs.mean()),
                "share of clips nearer than Griffin-Lim's": float((ours < theirs).float().mean()),
            }
            target = f"<= {theirs.mean():.3f}" if targets else ""
            scores.append(subject.score("vocoder", name + of, ours, without, compared, target))
        same, classic, plain = (self.similarities(waveforms) for waveforms in (made, classical, random))
        compared = {"Griffin-Lim": float(np.mean(classic))}
        if len(made) > 1:
            compared["shuffled pairs"] = float(np.mean(self.similarities(made.roll(1, 0))))
        name, target = f"chroma similarity to the source{of}", ">= 0.87" if targets else ""
        return [*scores, subject.score("vocoder", name, same, plain, compared, target)]

    def similarities(self, waveforms: Tensor) -> list[float]:
        """Chroma similarity of the first clips to as many waveforms; 0 for a waveform without any tone."""
        made = [Clip(waveform, SPEC.sample_rate) for waveform in waveforms]
        return [float(np.nan_to_num(chroma_similarity(*pair))) for pair in zip(made, self.clips, strict=False)]


@torch.no_grad()
def synthesize(vocoder: Any, mels: Tensor) -> Tensor:
    """Waveforms (N, T * 160) of mels (N, T, F), a few at a time."""
    return torch.cat([vocode(vocoder, part, SPEC.hop_length) for part in mels.split(4)])


def refine(waveforms: Tensor, mels: Tensor) -> Tensor:
    """A vocoder's waveforms (N, T * 160) with the magnitudes of their mels (N, T, F), as with ``vocoder: refined``."""
    return griffin_lim(mels, SPEC, REFINEMENTS, start=waveforms)


def seconds_scores(subject: Subject, both: Both) -> list[Score]:
    """Processor time of one thread for 10 s of audio, of the vocoder alone and refined."""
    mels = torch.full((1, 10 * SPEC.sample_rate // SPEC.hop_length, SPEC.num_mels), MEL_MEAN)
    compared = {"Griffin-Lim": float(np.mean(_seconds(partial(griffin_lim, spec=SPEC), mels, runs=1)))}
    scores = []
    for of, synthesis in (("", synthesize), (", refined", lambda vocoder, mel: refine(synthesize(vocoder, mel), mel))):
        ours, without = (_seconds(partial(synthesis, vocoder), mels) for vocoder in both)
        name = f"seconds of one core for 10 s of sound{of}"
        scores.append(subject.score("vocoder", name, ours, without, compared, "<= 0.5"))
    return scores


def _seconds(synthesis: Callable[[Tensor], Tensor], mels: Tensor, runs: int = TIMED_RUNS) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        synthesis(mels[:, :50])  # the first call alone has some costs
        taken = []
        for _ in range(runs):
            start = time.process_time()
            synthesis(mels)
            taken.append(time.process_time() - start)
        return taken
    finally:
        torch.set_num_threads(threads)


def _draw(path: Path, sources: Sources, trained: Any, seed: int) -> None:
    """Draw log-mels of the source and of the waveforms by the vocoder, the refined vocoder and Griffin-Lim."""
    mels = sources.mels[:3]
    made = synthesize(trained, mels)
    sounds = {"vocoder": made, "refined": refine(made, mels), "Griffin-Lim": griffin_lim(mels, SPEC, seed=seed)}
    rows = {name: list(log_mel(waveforms, SPEC)[:, 0]) for name, waveforms in sounds.items()}
    draw_mels(path, {"source": list(mels), **rows}, sources.keys[:3])
