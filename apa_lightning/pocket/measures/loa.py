"""Cosine similarity of the language-of-audio tokens generated from a caption and the true ones of its clip."""

import torch
from torch import Tensor

from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import load_frozen, require
from apa_lightning.pocket.parts.loa import own_and_others, token_cosine, true_loa
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text.prompt_streams import PromptEncoder, generate
from apa_lightning.utils.rng import seeded

GENERATOR = ("projection_model", "language_model")
PICTURES = 5


@torch.no_grad()
def measure(subject: Subject) -> list[Score]:
    """Measure the similarity, mean over the eight tokens, and its gain over captions of other clips; picture: ``loa.png``.

    Raises:
        InputError: If the folder lacks a part, or there are fewer than two clips.
    """
    folder, clips = subject.folder, subject.clips
    require(folder, ("audio_encoder", *GENERATOR))
    if len(clips) < 2:
        raise InputError(f"clips: {len(clips)}; a caption is compared with those of other clips. Give more.")
    encoder, prompts = AudioMAE.from_pretrained(folder / "audio_encoder"), PromptEncoder(folder)(clips.prompts)
    true = torch.cat([true_loa(encoder(part)) for part in clips.waveform.split(32)])
    projection, language_model = (load_frozen(folder, part) for part in GENERATOR)
    with seeded(subject.seed):
        random = type(projection).from_config(projection.config), type(language_model)(language_model.config).eval()
    made, noise = generate(projection, language_model, prompts), generate(*random, prompts)
    scores = []
    # LOA tokens of all clips are alike for a large part: without their mean, the rest distinguishes clips.
    for space, mean in (("", torch.zeros(())), (" without the mean LOA", true.mean(dim=0))):
        own, others = own_and_others(token_cosine(true - mean, made - mean).double())
        plain, plain_others = own_and_others(token_cosine(true - mean, noise - mean))
        compared = {
            "shuffled captions": float(others.mean()),
            "mean of other clips with the same labels": _of_labels(true, mean, clips),
        }
        name = f"cosine to the true pooled LOA{space}"
        scores.append(subject.score("loa", name, own, plain, compared))
        gain, target = f"gain over shuffled captions, {name}", ">= 0.2" if space else ""
        scores.append(subject.score("loa", gain, own - others, plain - plain_others, target=target))
    if subject.pictures is not None:
        chosen = torch.randperm(len(clips), generator=torch.Generator().manual_seed(subject.seed))[:PICTURES].tolist()
        rows = {
            name: [tokens[i] - true.mean(dim=0) for i in chosen]
            for name, tokens in (("true", true), ("generated", made))
        }
        draw_mels(subject.pictures / "loa.png", rows, [clips.prompts[i] for i in chosen])
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
