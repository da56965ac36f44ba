"""Reconstruction by the VAE: log-mel L1, chroma similarity after Griffin-Lim, and the scale of the latents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.metrics import Clip, chroma_similarity, following_others
from apa_lightning.pocket.assembly import load_frozen, untrained
from apa_lightning.pocket.parts.vae import MEL, l1_per_clip, leveled_log_mel
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject

L1_CLIPS, CHROMA_CLIPS, UNTRAINED_CLIPS = 128, 40, 16
#: Kinds of clips: a name, the renderer's kinds, and the L1 that is to be reached.
KINDS = (("solo", ("solo",), "<= 0.35"), ("with backing", ("duet", "genre"), "<= 0.25"))
#: The trained VAE and the untrained one.
Both = Sequence[Any]


def measure(subject: Subject) -> list[Score]:
    """Measure the VAE on clips of 5.12 s; pictures: ``vae.png``, ``vae_recordings.png``. Recordings have no targets."""
    vaes = load_frozen(subject.folder, "vae"), untrained(subject.folder, "vae", subject.seed)
    drawn, recordings = subject.clips.draw(L1_CLIPS, subject.seed), subject.recordings
    scores, shown = [], []
    for name, kinds, target in KINDS:
        if chosen := drawn.where(lambda fields, kinds=kinds: fields.get("kind") in kinds):  # type: ignore[misc]
            scores.append(l1_score(subject, name, vaes, chosen, target))
            shown.append(chosen)
    scores += [chroma_score(subject, "", vaes, drawn, ">= 0.80"), scale_score(subject, vaes[0], drawn)]
    if recordings:
        scores.append(l1_score(subject, "real recordings", vaes, recordings))
        scores.append(chroma_score(subject, " of real recordings", vaes, recordings))
    if subject.pictures is not None:
        clips = [chosen.take([i]) for i in range(3) for chosen in shown if i < len(chosen)]
        _draw(subject.pictures / "vae.png", vaes[0], clips[:3])
        if recordings:
            few = recordings.draw(3, subject.seed)
            _draw(subject.pictures / "vae_recordings.png", vaes[0], [few.take([i]) for i in range(len(few))])
    return scores


@torch.no_grad()
def reconstruct(vae: Any, clips: Clips, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Log-mels (N, T, F) of the clips, or the first ``most`` of them, before and after the VAE."""
    parts = [leveled_log_mel({"waveform": part}) for part in clips.waveform[:most].split(8)]
    source = torch.cat(parts)[:, 0]
    return source, through_vae(vae, source)


@torch.no_grad()
def through_vae(vae: Any, mels: Tensor) -> Tensor:
    """Mels (N, T, F) encoded and decoded by the mean of the posterior."""
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in mels[:, None].split(8)])[:, 0]


def l1_score(subject: Subject, kind: str, vaes: Both, clips: Clips, target: str = "") -> Score:
    """Log-mel L1, compared with one spectrum for all: the mean of the clips, bin by bin."""
    source, made = reconstruct(vaes[0], clips)
    random = l1_per_clip(*reconstruct(vaes[1], clips, UNTRAINED_CLIPS))
    compared = {"mean spectrum of the clips": float((source - source.mean(dim=(0, 1))).abs().mean())}
    return subject.score("vae", f"log-mel L1, {kind}", l1_per_clip(made, source), random, compared, target)


def chroma_score(subject: Subject, of: str, vaes: Both, clips: Clips, target: str = "") -> Score:
    """Chroma similarity to the source after the VAE and 32 iterations of Griffin-Lim.

    Compared with shuffled pairs and with Griffin-Lim on true mels.
    """
    clips = clips.draw(CHROMA_CLIPS, subject.seed + 1)
    source, made = reconstruct(vaes[0], clips)
    _, random = reconstruct(vaes[1], clips, UNTRAINED_CLIPS)
    sources = [Clip(waveform, clips.sample_rate) for waveform in clips.waveform]
    ours, true, other = (
        [Clip(waveform, MEL.sample_rate) for waveform in griffin_lim(mel, MEL, seed=subject.seed)]
        for mel in (made, source, random)
    )
    compared = {"Griffin-Lim on true mels": float(np.mean(_similarities(true, sources)))}
    if pairs := shuffled_pairs(clips):
        compared["shuffled pairs"] = float(np.mean([chroma_similarity(ours[i], sources[j]) for i, j in pairs]))
    name = f"chroma similarity{of} through VAE and Griffin-Lim"
    return subject.score("vae", name, _similarities(ours, sources), _similarities(other, sources), compared, target)


def shuffled_pairs(clips: Clips) -> list[tuple[int, int]]:
    """Each clip with the next one that has another melody."""
    fields = clips.metadata or [{}] * len(clips)
    melodies = [row.get("melody", key) for row, key in zip(fields, clips.keys, strict=True)]
    others = following_others(range(len(clips)), melodies.__getitem__)
    return [(i, j) for i, j in enumerate(others) if j is not None]


@torch.no_grad()
def scale_score(subject: Subject, vae: Any, clips: Clips) -> Score:
    """Deviation of the scaled latents: each clip's own about the mean of all, as a root mean square."""
    latents = vae.encode(leveled_log_mel({"waveform": clips.waveform[:UNTRAINED_CLIPS]})).latent_dist.mean
    latents = latents * vae.config.scaling_factor
    each = (latents - latents.mean()).square().mean(dim=(1, 2, 3)).sqrt()
    return subject.score("vae", "deviation of the scaled latents", each)


def _similarities(first: list[Clip], second: list[Clip]) -> list[float]:
    """Chroma similarity of pairs, as many as ``first`` has."""
    return [chroma_similarity(one, other) for one, other in zip(first, second, strict=False)]


def _draw(path: Path, vae: Any, shown: list[Clips]) -> None:
    """Draw source and reconstruction of single clips."""
    sources, made = zip(*(reconstruct(vae, clip) for clip in shown), strict=True)
    rows = {"source": [mel[0] for mel in sources], "reconstruction": [mel[0] for mel in made]}
    draw_mels(path, rows, [clip.keys[0] for clip in shown])
