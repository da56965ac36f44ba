"""What the pocket VAE keeps of a clip: its log-mel, and its harmony after Griffin-Lim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.metrics import chroma, chroma_cosine
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.vae import MEL, l1_per_clip, levelled_log_mel
from apa_lightning.pocket.report.figures import Clips, Figure, draw_mels
from apa_lightning.utils.bootstrap import bootstrap
from apa_lightning.utils.pretrained import frozen, no_progress_bars

L1_CLIPS, CHROMA_CLIPS, UNTRAINED_CLIPS = 128, 40, 16
#: Kinds of clip: which they are, the L1 that is to be reached.
KINDS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "solo": (lambda fields: fields.get("kind") == "solo", "<= 0.35"),
    "with backing": (lambda fields: fields.get("kind") in ("duet", "genre"), "<= 0.25"),
}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """Log-mel L1, chroma similarity to the source after 32 iterations of Griffin-Lim, and the latents' scale.

    Args:
        folder: holds ``vae``. clips: held-out clips of 5.12 s. seed: of the clips drawn, the untrained VAE and the intervals.
        pictures: folder for ``vae.png`` and ``vae_recordings.png``.
        recordings: real recordings in windows of 5.12 s; their figures have no target.

    Raises:
        InputError: ``folder`` lacks the VAE.
    """
    require(folder, ("vae",))
    trained, untrained = load(folder), untrained_like(folder, seed)
    drawn = clips.take(_draw_numbers(len(clips), L1_CLIPS, seed))
    figures, shown = [], []
    for kind, (wanted, target) in KINDS.items():
        if len(chosen := drawn.where(wanted)):
            figures.append(
                l1_figure(kind, _pass(trained, chosen), _pass(untrained, chosen, UNTRAINED_CLIPS), seed, target)
            )
            shown.append(chosen)
    figures.append(chroma_figure("", trained, untrained, drawn, seed, ">= 0.80"))
    figures.append(scale_figure(trained, drawn, seed))
    if recordings is not None and len(recordings):
        once, plain = _pass(trained, recordings), _pass(untrained, recordings, UNTRAINED_CLIPS)
        figures.append(l1_figure("real recordings", once, plain, seed))
        figures.append(chroma_figure(" of real recordings", trained, untrained, recordings, seed))
    if pictures is not None:
        _draw(pictures / "vae.png", trained, [(part, i) for i in range(3) for part in shown if i < len(part)][:3])
        if recordings is not None and len(recordings):
            numbers = _draw_numbers(len(recordings), 3, seed)
            _draw(pictures / "vae_recordings.png", trained, [(recordings, i) for i in numbers])
    return figures


@dataclass(frozen=True)
class Passed:
    """Log-mels (N, T, F) before and after the VAE, and the L1 (N,) between them."""

    source: Tensor
    reconstruction: Tensor

    @property
    def l1(self) -> Tensor:
        return l1_per_clip(self.reconstruction[:, None], self.source[:, None])


def load(folder: Path) -> Any:
    """The VAE of ``folder`` in fp32."""
    with no_progress_bars():
        return frozen(AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32))


def untrained_like(folder: Path, seed: int) -> Any:
    """A VAE of the same configuration with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return frozen(AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae")))


def l1_figure(kind: str, once: Passed, untrained: Passed, seed: int, target: str = "") -> Figure:
    """Log-mel L1 beside that of one spectrum for all: the mean of the clips, bin by bin."""
    flat = (once.source - once.source.mean(dim=(0, 1))).abs().mean()
    name, beside = f"log-mel L1, {kind}", {"mean spectrum of the clips": float(flat)}
    l1 = once.l1.numpy()
    return Figure("vae", name, *bootstrap(l1, seed), len(l1), float(untrained.l1.mean()), beside, target)


def chroma_figure(of: str, trained: Any, untrained: Any, clips: Clips, seed: int, target: str = "") -> Figure:
    """Chroma similarity of VAE and Griffin-Lim to the source, beside shuffled pairs and Griffin-Lim on true mels."""
    clips = clips.take(_draw_numbers(len(clips), CHROMA_CLIPS, seed + 1))
    once, plain = _pass(trained, clips), _pass(untrained, clips, UNTRAINED_CLIPS)
    sources = [chroma(waveform, clips.sample_rate) for waveform in clips.waveform]
    heard, true, random = (
        [chroma(waveform, MEL.sample_rate) for waveform in griffin_lim(mel, MEL, seed=seed)]
        for mel in (once.reconstruction, once.source, plain.reconstruction)
    )
    same = _similarities(heard, sources)
    beside = {"Griffin-Lim on true mels": float(np.mean(_similarities(true, sources)))}
    if pairs := shuffled_pairs(clips):
        beside["shuffled pairs"] = float(np.mean([chroma_cosine(heard[i], sources[j]) for i, j in pairs]))
    name = f"chroma similarity{of} through VAE and Griffin-Lim"
    return Figure(
        "vae", name, *bootstrap(same, seed), len(clips), float(np.mean(_similarities(random, sources))), beside, target
    )


def shuffled_pairs(clips: Clips) -> list[tuple[int, int]]:
    """Each clip with the next one that has another melody."""
    melodies = [
        fields.get("melody", key) for fields, key in zip(clips.metadata or [{}] * len(clips), clips.keys, strict=True)
    ]
    count = len(clips)
    following = ([(i + step) % count for step in range(1, count)] for i in range(count))
    others = (next((j for j in turn if melodies[j] != melodies[i]), None) for i, turn in enumerate(following))
    return [(i, j) for i, j in enumerate(others) if j is not None]


def scale_figure(trained: Any, clips: Clips, seed: int) -> Figure:
    """Deviation of the scaled latents: each clip's own about the mean of all, as a root mean square."""
    clips = clips.take(range(min(UNTRAINED_CLIPS, len(clips))))
    with torch.no_grad():
        latents = trained.encode(levelled_log_mel({"waveform": clips.waveform})).latent_dist.mean
    latents = latents * trained.config.scaling_factor
    each = (latents - latents.mean()).square().mean(dim=(1, 2, 3)).sqrt()
    return Figure("vae", "deviation of the scaled latents", *bootstrap(each.numpy(), seed), len(clips))


@torch.no_grad()
def _pass(vae: Any, clips: Clips, most: int | None = None) -> Passed:
    """``clips``, or the first ``most`` of them, through ``vae`` by the mean of the posterior."""
    mels = torch.cat([levelled_log_mel({"waveform": part}) for part in clips.waveform[:most].split(8)])
    again = [vae.decode(vae.encode(mel).latent_dist.mean).sample for mel in mels.split(8)]
    return Passed(mels[:, 0], torch.cat(again)[:, 0])


def _similarities(first: list[np.ndarray], second: list[np.ndarray]) -> list[float]:
    """Of pairs, as many as ``first`` has."""
    return [chroma_cosine(one, other) for one, other in zip(first, second, strict=False)]


def _draw_numbers(count: int, most: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].tolist()


def _draw(path: Path, vae: Any, chosen: list[tuple[Clips, int]]) -> None:
    """Source and reconstruction of single clips."""
    passed = [_pass(vae, clips.take([number])) for clips, number in chosen]
    rows: dict[str, Sequence[Tensor]] = {
        "source": [p.source[0] for p in passed],
        "reconstruction": [p.reconstruction[0] for p in passed],
    }
    draw_mels(path, rows, [clips.keys[number] for clips, number in chosen])
