"""Cosine similarity of the language-of-audio tokens generated from a caption and the true ones of its clip."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.loading import load_frozen
from apa_lightning.pocket.parts.loa import own_and_others, token_cosine, true_loa
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.text.prompt_encoder import PromptEncoder
from apa_lightning.pocket.text.prompt_streams import generate
from apa_lightning.utils.rng import seeded

GENERATOR = ("projection_model", "language_model")
#: LOA tokens of all clips are alike for a large part: without their mean, the rest tells clips apart.
SPACES = {"": False, " without the mean LOA": True}


@torch.no_grad()
def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure the similarity, mean over the eight tokens, and its gain over captions of other clips; picture: ``loa.png``.

    Raises:
        InputError: If ``folder`` lacks a part, or there are fewer than two clips.
    """
    require(folder, ("audio_encoder", *GENERATOR))
    if len(clips) < 2:
        raise InputError(f"clips: {len(clips)}; a caption is compared with those of other clips. Give more.")
    encoder, prompts = AudioMAE.from_pretrained(folder / "audio_encoder"), PromptEncoder(folder)(clips.prompts)
    true = torch.cat([true_loa(encoder, part) for part in clips.waveform.split(32)])
    projection, language_model = (load_frozen(folder, part) for part in GENERATOR)
    with seeded(seed):
        random = type(projection).from_config(projection.config), type(language_model)(language_model.config).eval()
    made, noise = generate(projection, language_model, prompts), generate(*random, prompts)
    scores = []
    for space, centered in SPACES.items():
        mean = true.mean(dim=0) if centered else torch.zeros(())
        own, others = own_and_others(token_cosine(true - mean, made - mean).double())
        plain = own_and_others(token_cosine(true - mean, noise - mean))
        compared = {
            "shuffled captions": float(others.mean()),
            "mean of other clips with the same labels": _of_labels(true, mean, clips),
        }
        name, target = f"cosine to the true pooled LOA{space}", ">= 0.2" if centered else ""
        gain, without = own - others, plain[0] - plain[1]
        scores += [
            Score.of("loa", name, own, seed, plain[0], compared=compared),
            Score.of("loa", f"gain over shuffled captions, {name}", gain, seed, without, target=target),
        ]
    if pictures is not None:
        _draw(pictures / "loa.png", true, made, clips, seed)
    return scores


def _of_labels(true: Tensor, mean: Tensor, clips: Clips) -> float:
    """The best that a caption could know: cosine to the mean true LOA of all other clips with the same labels."""
    same = torch.tensor([[a == b for b in clips.labels] for a in clips.labels]).float()
    same.fill_diagonal_(0)
    count = same.sum(dim=1)
    if not (known := count > 0).any():
        return float("nan")
    average = torch.einsum("nm,mtw->ntw", same[known], true) / count[known, None, None]
    return float(token_cosine(true[known] - mean, average - mean).diagonal().mean())


def _draw(path: Path, true: Tensor, made: Tensor, clips: Clips, seed: int, columns: int = 5) -> None:
    """Draw true and generated tokens of a few clips, without the mean: eight stretches of time, all channels."""
    chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))[:columns].tolist()
    mean = true.mean(dim=0)
    rows: dict[str, Sequence[Tensor]] = {
        name: [tokens[i] - mean for i in chosen] for name, tokens in (("true", true), ("generated", made))
    }
    draw_mels(path, rows, [clips.prompts[i] for i in chosen])
