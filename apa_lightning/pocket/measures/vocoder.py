"""How near the pocket vocoder's sound is to the source, alone and refined, beside Griffin-Lim from the same mels, and after the VAE."""

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
from apa_lightning.backbones.audioldm2 import REFINEMENTS
from apa_lightning.metrics import chroma, chroma_cosine
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.vocoder import (
    MEL_MEAN,
    MEL_SCALE,
    PEAK,
    initialise,
    log_spectral_distance,
    multi_resolution_distance,
    vocode,
)
from apa_lightning.pocket.report.figures import Clips, Figure, draw_mels
from apa_lightning.utils.bootstrap import bootstrap
from apa_lightning.utils.pretrained import frozen, no_progress_bars

MOST_CLIPS, MOST_RECORDINGS, UNTRAINED_CLIPS, TIMED_RUNS = 32, 12, 12, 5
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "multi-resolution STFT distance": multi_resolution_distance,
    "log-spectral distance in dB": log_spectral_distance,
}
SPEC = MelSpec()
Synthesis = Callable[[Tensor], Tensor]


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """Distances and chroma similarity from true mels and from the VAE's, and the time for 10 s.

    Args:
        folder: holds ``vocoder``, and ``vae`` if the chain is to be measured too.
        clips: held-out clips. seed: of the clips drawn, the untrained vocoder and the intervals.
        pictures: folder for ``vocoder.png`` and ``vocoder_recordings.png``.
        recordings: real recordings in windows; their figures have no target.

    Raises:
        InputError: ``folder`` lacks the vocoder.
    """
    require(folder, ("vocoder",))
    trained, untrained = load(folder), untrained_like(folder, seed)
    figures = seconds_figures(trained, untrained, seed)
    parts = [("", _draw_some(clips, MOST_CLIPS, seed))]
    if recordings is not None and len(recordings):
        parts.append((", real recordings", _draw_some(recordings, MOST_RECORDINGS, seed)))
    for of, chosen in parts:
        sources = Sources(chosen)
        figures += sources.figures(of, sources.mels, trained, untrained, seed, targets=not of)
        if (folder / "vae").is_dir():
            figures += sources.figures(
                f", VAE and vocoder{of}", _through_vae(folder, sources.mels), trained, untrained, seed
            )
        if pictures is not None:
            _draw(pictures / f"vocoder{'_recordings' if of else ''}.png", sources, trained, seed)
    return figures


def load(folder: Path) -> Any:
    """The vocoder of ``folder`` in fp32."""
    with no_progress_bars():
        return frozen(SpeechT5HifiGan.from_pretrained(folder / "vocoder", dtype=torch.float32))


def untrained_like(folder: Path, seed: int) -> Any:
    """A vocoder of the same configuration as training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig.from_pretrained(folder / "vocoder"))
        initialise(vocoder, MEL_MEAN, MEL_SCALE)
    return frozen(vocoder)


class Sources:
    """Clips as the vocoder should sound them: waveforms (N, S) with a peak of 0.5, their mels (N, T, F) and chroma."""

    def __init__(self, clips: Clips):
        self.keys = clips.keys
        waveforms = normalize_level(clips.waveform.float(), PEAK)
        self.mels = log_mel(waveforms, SPEC)[:, 0]
        self.waveforms = waveforms[:, : self.mels.shape[1] * SPEC.hop_length]
        self.chroma = [chroma(waveform, SPEC.sample_rate) for waveform in self.waveforms]

    def figures(
        self, of: str, mels: Tensor, trained: Any, untrained: Any, seed: int, targets: bool = False
    ) -> list[Figure]:
        """Both distances and the chroma similarity of what is made of ``mels``, by the vocoder alone and refined, beside
        Griffin-Lim's of the same mels.

        ``targets``: Griffin-Lim's distances are the ones to beat, and the chroma similarity has its own target.
        """
        made, plain = synthesise(trained, mels), synthesise(untrained, mels[:UNTRAINED_CLIPS])
        classical = griffin_lim(mels, SPEC, seed=seed)
        figures = self._compared(of, made, plain, classical, seed, targets)
        refined = [refine(waveforms, mels[: len(waveforms)]) for waveforms in (made, plain)]
        return figures + self._compared(f", refined{of}", refined[0], refined[1], classical, seed, targets)

    def _compared(
        self, of: str, made: Tensor, plain: Tensor, classical: Tensor, seed: int, targets: bool
    ) -> list[Figure]:
        figures = []
        for name, distance in DISTANCES.items():
            ours, theirs = (distance(waveforms, self.waveforms) for waveforms in (made, classical))
            random = float(distance(plain, self.waveforms[: len(plain)]).mean())
            beside = {
                "Griffin-Lim": float(theirs.mean()),
                "share of clips nearer than Griffin-Lim's": float((ours < theirs).float().mean()),
            }
            target = f"<= {theirs.mean():.3f}" if targets else ""
            figures.append(
                Figure("vocoder", name + of, *bootstrap(ours.numpy(), seed), len(ours), random, beside, target)
            )
        same, theirs_, random_ = (self.similarities(waveforms) for waveforms in (made, classical, plain))
        beside = {"Griffin-Lim": float(np.mean(theirs_))}
        if len(made) > 1:
            beside["shuffled pairs"] = float(np.mean(self.similarities(made.roll(1, 0))))
        name, target = f"chroma similarity to the source{of}", ">= 0.87" if targets else ""
        figures.append(
            Figure("vocoder", name, *bootstrap(same, seed), len(same), float(np.mean(random_)), beside, target)
        )
        return figures

    def similarities(self, waveforms: Tensor) -> list[float]:
        """Chroma similarity of the first clips to as many waveforms; 0 for one without any tone."""
        made = [chroma(waveform, SPEC.sample_rate) for waveform in waveforms]
        return [float(np.nan_to_num(chroma_cosine(*pair))) for pair in zip(made, self.chroma, strict=False)]


@torch.no_grad()
def synthesise(vocoder: Any, mels: Tensor) -> Tensor:
    """Waveforms (N, T * 160) of mels (N, T, F), a few at a time."""
    return torch.cat([vocode(vocoder, part, SPEC.hop_length) for part in mels.split(4)])


def refine(waveforms: Tensor, mels: Tensor) -> Tensor:
    """A vocoder's waveforms (N, T * 160) with the magnitudes of their mels (N, T, F), as ``vocoder: refined`` makes them."""
    return griffin_lim(mels, SPEC, REFINEMENTS, start=waveforms)


def seconds_figures(trained: Any, untrained: Any, seed: int) -> list[Figure]:
    """Processor time of one thread for 10 s of sound, of the vocoder alone and refined."""
    mels = torch.full((1, 10 * SPEC.sample_rate // SPEC.hop_length, SPEC.num_mels), MEL_MEAN)
    beside = {"Griffin-Lim": float(np.mean(_seconds(partial(griffin_lim, spec=SPEC), mels, runs=1)))}
    figures = []
    for of, synthesis in (("", synthesise), (", refined", lambda vocoder, mel: refine(synthesise(vocoder, mel), mel))):
        ours, plain = (_seconds(partial(synthesis, vocoder), mels) for vocoder in (trained, untrained))
        name = f"seconds of one core for 10 s of sound{of}"
        figures.append(
            Figure("vocoder", name, *bootstrap(ours, seed), len(ours), float(np.mean(plain)), beside, "<= 0.5")
        )
    return figures


def _seconds(synthesis: Synthesis, mels: Tensor, runs: int = TIMED_RUNS) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        synthesis(mels[:, :50])  # what only the first call costs
        taken = []
        for _ in range(runs):
            start = time.process_time()
            synthesis(mels)
            taken.append(time.process_time() - start)
        return taken
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _through_vae(folder: Path, mels: Tensor) -> Tensor:
    """Mels (N, T, F) encoded and decoded, by the mean of the posterior."""
    from apa_lightning.pocket.measures.vae import load as load_vae

    vae = load_vae(folder)
    return torch.cat([vae.decode(vae.encode(part[:, None]).latent_dist.mean).sample[:, 0] for part in mels.split(8)])


def _draw_some(clips: Clips, most: int, seed: int) -> Clips:
    return clips.take(torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))[:most].tolist())


def _draw(path: Path, sources: Sources, trained: Any, seed: int) -> None:
    """Log-mels of the source, and of what the vocoder, the refined vocoder and Griffin-Lim make of them."""
    mels = sources.mels[:3]
    made = synthesise(trained, mels)
    sounds = {"vocoder": made, "refined": refine(made, mels), "Griffin-Lim": griffin_lim(mels, SPEC, seed=seed)}
    rows = {name: list(log_mel(waveforms, SPEC)[:, 0]) for name, waveforms in sounds.items()}
    draw_mels(path, {"source": list(mels), **rows}, sources.keys[:3])
