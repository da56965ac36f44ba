"""Retrieval between texts and clips by CLAP, and a linear probe on its text branch."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.loading import load_part
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import save_picture
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.text_probe import text_scores
from apa_lightning.pocket.text.prompts import ASKED, INSTRUMENTS
from apa_lightning.utils.pretrained import no_progress_bars
from apa_lightning.utils.rng import seeded

CAPTIONS = 64
TARGETS = {"instrument": ">= 0.95", "genre": ">= 0.90", "accompaniment": ""}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure retrieval by the paper's prompts among eight and by caption among 64, and the probe; picture: ``clap.png``.

    Of the recordings those count whose key starts with an instrument's name, which is to be found.
    """
    require(folder, ("tokenizer", "text_encoder", "feature_extractor"))
    both = embedders(folder, seed)
    audio = [_embed(clap, clips) for clap in both]
    scores = []
    for kind, asked in ASKED.items():
        chosen = [i for i in range(len(clips)) if _asked_label(clips.labels[i], kind) in asked]
        if chosen:
            answers = [list(asked).index(_asked_label(clips.labels[i], kind)) for i in chosen]
            vectors = [embeddings[chosen] for embeddings in audio]
            name = f"text retrieves the {kind} among {len(asked)}"
            scores.append(_retrieval(name, both, vectors, list(asked.values()), answers, seed, TARGETS[kind]))
    scores.append(recall(both, audio, clips, seed))
    if recordings is not None:
        scores += _recorded(both, recordings, seed)
    if pictures is not None:
        _draw(pictures / "clap.png", both[0], audio[0], clips)
    return scores + text_scores("clap", both[0].text, both[1].text, seed)


def embedders(folder: Path, seed: int) -> tuple[ClapEmbedder, ClapEmbedder]:
    """The CLAP of ``folder`` in single precision, and one of its kind with random weights."""
    with no_progress_bars():
        tokenizer = transformers.RobertaTokenizer.from_pretrained(folder / "tokenizer")
        extractor = transformers.ClapFeatureExtractor.from_pretrained(folder / "feature_extractor")
    model = load_part(folder, "text_encoder")
    with seeded(seed):
        untrained = transformers.ClapModel(model.config)
    return ClapEmbedder(model, extractor, tokenizer), ClapEmbedder(untrained, extractor, tokenizer, "untrained")


def recall(both: Sequence[ClapEmbedder], audio: Sequence[Tensor], clips: Clips, seed: int) -> Score:
    """The share of clips whose own caption is the nearest among up to 64 different ones.

    Compared with the share whose nearest caption has the same labels.

    Args:
        both: The trained and the untrained CLAP.
        audio: Audio embeddings (N, D) of ``clips`` by both.
        clips: Clips with prompts and labels.
        seed: Seed of the captions and the interval.
    """
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = list({clips.prompts[i]: i for i in order}.values())[:CAPTIONS]
    texts, labels = [clips.prompts[i] for i in chosen], [clips.labels[i] for i in chosen]
    found, random = (
        (vectors[chosen] @ clap.text(texts).T).argmax(-1).tolist() for clap, vectors in zip(both, audio, strict=True)
    )
    right, without = ([float(answer == i) for i, answer in enumerate(answers)] for answers in (found, random))
    same = [labels[answer] == labels[i] for i, answer in enumerate(found)]
    compared = {"caption of the same labels": sum(same) / len(same), "chance": 1 / len(chosen)}
    name = f"audio-to-text recall@1 among {len(chosen)} captions"
    return Score.of("clap", name, right, seed, without, compared=compared)


def _retrieval(
    name: str,
    both: Sequence[ClapEmbedder],
    audio: Sequence[Tensor],
    texts: list[str],
    answers: Sequence[int],
    seed: int,
    target: str = "",
) -> Score:
    """The share of clips whose nearest text is the right one."""
    right, random = (
        (vectors @ clap.text(texts).T).argmax(-1).eq(torch.tensor(answers)).float()
        for clap, vectors in zip(both, audio, strict=True)
    )
    return Score.of("clap", name, right, seed, random, compared={"chance": 1 / len(texts)}, target=target)


def _recorded(both: Sequence[ClapEmbedder], recordings: Clips, seed: int) -> list[Score]:
    names = list(INSTRUMENTS)
    named = {
        i: name for i, key in enumerate(recordings.keys) for name in names if key.startswith(name.replace(" ", "_"))
    }
    if not named:
        return []
    audio = [_embed(clap, recordings.take(list(named))) for clap in both]
    answers = [names.index(name) for name in named.values()]
    title = f"text retrieves the instrument among {len(names)}: real recordings"
    return [_retrieval(title, both, audio, list(ASKED["instrument"].values()), answers, seed)]


def _embed(clap: ClapEmbedder, clips: Clips) -> Tensor:
    """Audio embeddings (N, D)."""
    return torch.stack([clap.audio(waveform, clips.sample_rate) for waveform in clips.waveform])


def _asked_label(labels: Sequence[str], kind: str) -> str:
    """The label that a prompt of this kind asks for; "" where the clip is of another kind."""
    return labels[-1] if (len(labels) == 2) == (kind == "accompaniment") else ""


def _draw(path: Path, clap: ClapEmbedder, audio: Tensor, clips: Clips) -> None:
    """Draw the mean cosine of clips (rows, by labels) and the paper's prompts (columns)."""
    from matplotlib.figure import Figure

    texts = {text: label for kind in TARGETS if TARGETS[kind] for label, text in ASKED[kind].items()}
    cosines = audio @ clap.text(list(texts)).T
    rows = {
        label: cosines[[i for i, labels in enumerate(clips.labels) if labels == [label]]] for label in texts.values()
    }
    rows = {label: values.mean(0) for label, values in rows.items() if len(values)}
    if not rows:
        return
    canvas = Figure(figsize=(9, 7), layout="constrained")
    axis = canvas.subplots()
    image = axis.imshow(torch.stack(list(rows.values())), aspect="auto", vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_xticks(range(len(texts)), list(texts), rotation=90, fontsize=8)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axis.set_title("Mean cosine of held-out clips and the paper's prompts", fontsize=9)
    canvas.colorbar(image)
    save_picture(canvas, path)
