"""Reconstruction by the VAE: log-mel L1, chroma similarity after Griffin-Lim, and the scale of the latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.metrics import Clip, chroma_similarity
from apa_lightning.pocket.loading import load_frozen, untrained
from apa_lightning.pocket.parts.vae import MEL, l1_per_clip, levelled_log_mel
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score

L1_CLIPS, CHROMA_CLIPS, UNTRAINED_CLIPS = 128, 40, 16
#: Kinds of clips, and the L1 that is to be reached.
KINDS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "solo": (lambda fields: fields.get("kind") == "solo", "<= 0.35"),
    "with backing": (lambda fields: fields.get("kind") in ("duet", "genre"), "<= 0.25"),
}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure the VAE on clips of 5.12 s; pictures: ``vae.png``, ``vae_recordings.png``. Recordings have no targets."""
    vaes = load_frozen(folder, "vae"), untrained(folder, "vae", seed)
    drawn = clips.draw(L1_CLIPS, seed)
    kinds = {kind: (drawn.where(wanted), target) for kind, (wanted, target) in KINDS.items()}
    kinds = {kind: (chosen, target) for kind, (chosen, target) in kinds.items() if len(chosen)}
    scores = [l1_score(kind, vaes, chosen, seed, target) for kind, (chosen, target) in kinds.items()]
    scores += [chroma_score("", vaes, drawn, seed, ">= 0.80"), scale_score(vaes[0], drawn, seed)]
    if recordings is not None and len(recordings):
        scores.append(l1_score("real recordings", vaes, recordings, seed))
        scores.append(chroma_score(" of real recordings", vaes, recordings, seed))
    if pictures is not None:
        shown = [chosen.take([i]) for i in range(3) for chosen, _ in kinds.values() if i < len(chosen)]
        _draw(pictures / "vae.png", vaes[0], shown[:3])
        if recordings is not None and len(recordings):
            few = recordings.draw(3, seed)
            _draw(pictures / "vae_recordings.png", vaes[0], [few.take([i]) for i in range(len(few))])
    return scores


@dataclass(frozen=True)
class Reconstruction:
    """Log-mels (N, T, F) before and after the VAE."""

    source: Tensor
    made: Tensor

    @property
    def l1(self) -> Tensor:
        """L1 (N,) between both."""
        return l1_per_clip(self.made[:, None], self.source[:, None])


@torch.no_grad()
def reconstruct(vae: Any, clips: Clips, most: int | None = None) -> Reconstruction:
    """The clips, or the first ``most`` of them, encoded and decoded by the mean of the posterior."""
    mels = torch.cat([levelled_log_mel({"waveform": part}) for part in clips.waveform[:most].split(8)])
    return Reconstruction(mels[:, 0], through_vae(vae, mels[:, 0]))


@torch.no_grad()
def through_vae(vae: Any, mels: Tensor) -> Tensor:
    """Mels (N, T, F) encoded and decoded by the mean of the posterior."""
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in mels[:, None].split(8)])[:, 0]


def l1_score(kind: str, vaes: Sequence[Any], clips: Clips, seed: int, target: str = "") -> Score:
    """Log-mel L1, compared with one spectrum for all: the mean of the clips, bin by bin."""
    trained, random = reconstruct(vaes[0], clips), reconstruct(vaes[1], clips, UNTRAINED_CLIPS)
    flat = (trained.source - trained.source.mean(dim=(0, 1))).abs().mean()
    compared = {"mean spectrum of the clips": float(flat)}
    return Score.of("vae", f"log-mel L1, {kind}", trained.l1, seed, random.l1, compared=compared, target=target)


def chroma_score(of: str, vaes: Sequence[Any], clips: Clips, seed: int, target: str = "") -> Score:
    """Chroma similarity to the source after the VAE and 32 iterations of Griffin-Lim.

    Compared with shuffled pairs and with Griffin-Lim on true mels.
    """
    clips = clips.draw(CHROMA_CLIPS, seed + 1)
    trained, random = reconstruct(vaes[0], clips), reconstruct(vaes[1], clips, UNTRAINED_CLIPS)
    sources = [Clip(waveform, clips.sample_rate) for waveform in clips.waveform]
    made, true, other = (
        [Clip(waveform, MEL.sample_rate) for waveform in griffin_lim(mel, MEL, seed=seed)]
        for mel in (trained.made, trained.source, random.made)
    )
    compared = {"Griffin-Lim on true mels": float(np.mean(_similarities(true, sources)))}
    if pairs := shuffled_pairs(clips):
        compared["shuffled pairs"] = float(np.mean([chroma_similarity(made[i], sources[j]) for i, j in pairs]))
    name = f"chroma similarity{of} through VAE and Griffin-Lim"
    same, without = _similarities(made, sources), _similarities(other, sources)
    return Score.of("vae", name, same, seed, without, compared=compared, target=target)


def shuffled_pairs(clips: Clips) -> list[tuple[int, int]]:
    """Each clip with the next one that has another melody."""
    fields = clips.metadata or [{}] * len(clips)
    melodies = [row.get("melody", key) for row, key in zip(fields, clips.keys, strict=True)]
    count = len(clips)
    following = ([(i + step) % count for step in range(1, count)] for i in range(count))
    others = (next((j for j in turn if melodies[j] != melodies[i]), None) for i, turn in enumerate(following))
    return [(i, j) for i, j in enumerate(others) if j is not None]


@torch.no_grad()
def scale_score(vae: Any, clips: Clips, seed: int) -> Score:
    """Deviation of the scaled latents: each clip's own about the mean of all, as a root mean square."""
    latents = vae.encode(levelled_log_mel({"waveform": clips.waveform[:UNTRAINED_CLIPS]})).latent_dist.mean
    latents = latents * vae.config.scaling_factor
    each = (latents - latents.mean()).square().mean(dim=(1, 2, 3)).sqrt()
    return Score.of("vae", "deviation of the scaled latents", each, seed)


def _similarities(first: list[Clip], second: list[Clip]) -> list[float]:
    """Chroma similarity of pairs, as many as ``first`` has."""
    return [chroma_similarity(one, other) for one, other in zip(first, second, strict=False)]


def _draw(path: Path, vae: Any, shown: list[Clips]) -> None:
    """Draw source and reconstruction of single clips."""
    pairs = [reconstruct(vae, clip) for clip in shown]
    rows: dict[str, Sequence[Tensor]] = {
        "source": [pair.source[0] for pair in pairs],
        "reconstruction": [pair.made[0] for pair in pairs],
    }
    draw_mels(path, rows, [clip.keys[0] for clip in shown])
