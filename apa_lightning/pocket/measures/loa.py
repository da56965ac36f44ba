"""How near the generated language-of-audio tokens of a caption come to the true ones of its clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioLDM2ProjectionModel
from torch import Tensor
from transformers import GPT2LMHeadModel

from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.loa import generate, own_and_others, token_cosine, true_loa
from apa_lightning.pocket.report.figures import Clips, Figure, draw_mels
from apa_lightning.pocket.text.prompt_encoder import EncodedPrompts, PromptEncoder
from apa_lightning.utils.bootstrap import bootstrap
from apa_lightning.utils.pretrained import frozen, no_progress_bars

#: LOA tokens of all clips are alike for a large part: with their mean taken away, what is left tells clips apart.
SPACES = {"": False, " without the mean LOA": True}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """Cosine similarity of generated and true pooled LOA, mean over the eight tokens, beside that of other clips' captions.

    Args:
        folder: holds the text encoders, tokenizers, ``audio_encoder``, ``projection_model`` and ``language_model``.
        clips: held-out clips with prompts; at least two. seed: of the intervals and the untrained generator.
        pictures: folder for ``loa.png``. recordings: not used, they have no captions.

    Raises:
        InputError: ``folder`` lacks a part; fewer than two clips.
    """
    require(folder, ("audio_encoder", "projection_model", "language_model"))
    if len(clips) < 2:
        raise InputError(f"clips: {len(clips)}; a caption is compared with those of other clips. Give more.")
    encoder, prompts = AudioMAE.from_pretrained(folder / "audio_encoder"), PromptEncoder(folder)(clips.prompts)
    true = torch.cat([true_loa(encoder, part) for part in clips.waveform.split(32)])
    trained, untrained = generators(folder, seed)
    made, random = _generated(trained, prompts), _generated(untrained, prompts)
    figures = []
    for space, centred in SPACES.items():
        mean = true.mean(dim=0) if centred else torch.zeros(())
        own, others = own_and_others(token_cosine(true - mean, made - mean).double())
        plain = own_and_others(token_cosine(true - mean, random - mean))
        beside = {
            "shuffled captions": float(others.mean()),
            "mean of other clips with the same labels": _of_labels(true, mean, clips),
        }
        name = f"cosine to the true pooled LOA{space}"
        count = len(clips)
        figures += [
            Figure("loa", name, *bootstrap(own.numpy(), seed), count, float(plain[0].mean()), beside),
            Figure(
                "loa",
                f"gain over shuffled captions, {name}",
                *bootstrap((own - others).numpy(), seed),
                count,
                float((plain[0] - plain[1]).mean()),
                target=">= 0.2" if centred else "",
            ),
        ]
    if pictures is not None:
        _draw(pictures / "loa.png", true, made, clips, seed)
    return figures


def generators(folder: Path, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Projection and language model of ``folder``, and both with random weights."""
    with no_progress_bars():
        projection = AudioLDM2ProjectionModel.from_pretrained(folder / "projection_model", torch_dtype=torch.float32)
        language_model = GPT2LMHeadModel.from_pretrained(folder / "language_model", dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = AudioLDM2ProjectionModel.from_config(projection.config), GPT2LMHeadModel(language_model.config)
    return (frozen(projection), frozen(language_model)), (frozen(random[0]), frozen(random[1]))


@torch.no_grad()
def _generated(models: tuple[Any, Any], prompts: EncodedPrompts) -> Tensor:
    return generate(*models, prompts)


def _of_labels(true: Tensor, mean: Tensor, clips: Clips) -> float:
    """What a caption could know at best: cosine to the mean true LOA of all other clips with the same labels."""
    same = torch.tensor([[a == b for b in clips.labels] for a in clips.labels]).float()
    same.fill_diagonal_(0)
    count = same.sum(dim=1)
    if not (known := count > 0).any():
        return float("nan")
    average = torch.einsum("nm,mtw->ntw", same[known], true) / count[known, None, None]
    return float(token_cosine(true[known] - mean, average - mean).diagonal().mean())


def _draw(path: Path, true: Tensor, made: Tensor, clips: Clips, seed: int, columns: int = 5) -> None:
    """True and generated tokens of a few clips, without the mean: eight stretches of time, all channels."""
    chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))[:columns].tolist()
    mean = true.mean(dim=0)
    rows: dict[str, Sequence[Tensor]] = {
        name: [tokens[i] - mean for i in chosen] for name, tokens in (("true", true), ("generated", made))
    }
    draw_mels(path, rows, [clips.prompts[i] for i in chosen])
