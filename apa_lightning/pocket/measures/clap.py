"""Retrieval between texts and clips by CLAP, and a linear probe on its text branch."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.assembly import load_part, load_processor, require
from apa_lightning.pocket.measures.text_probe import text_scores
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.pictures import save_picture
from apa_lightning.pocket.report.recordings import of_known_instrument
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text.prompts import ASKED, INSTRUMENTS
from apa_lightning.utils.rng import seeded

CAPTIONS = 64
TARGETS = {"instrument": ">= 0.95", "genre": ">= 0.90", "accompaniment": ""}
#: The trained CLAP and the untrained one.
Both = Sequence[ClapEmbedder]


def measure(subject: Subject) -> list[Score]:
    """Measure retrieval by the paper's prompts among eight and by caption among 64, and the probe; picture: ``clap.png``.

    Of the recordings those count whose key starts with an instrument's name, which is to be found.
    """
    clips, recordings = subject.clips, subject.recordings
    require(subject.folder, ("tokenizer", "text_encoder", "feature_extractor"))
    both = embedders(subject.folder, subject.seed)
    audio = [_embed(clap, clips) for clap in both]
    scores = []
    for kind in ASKED:
        labels = {i: _asked_label(clips.labels[i], kind) for i in range(len(clips))}
        labels = {i: label for i, label in labels.items() if label in ASKED[kind]}
        vectors = [embeddings[list(labels)] for embeddings in audio]
        scores += _retrieval(subject, kind, both, vectors, list(labels.values()), target=TARGETS[kind])
    scores.append(recall(subject, both, audio))
    if recordings and (named := of_known_instrument(recordings)):
        audio_2 = [_embed(clap, recordings.take(list(named))) for clap in both]
        labels_2 = [INSTRUMENTS[name] for name in named.values()]
        scores += _retrieval(subject, "instrument", both, audio_2, labels_2, of=": real recordings")
    if subject.pictures is not None:
        _draw(subject.pictures / "clap.png", both[0], audio[0], clips)
    return scores + text_scores("clap", both[0].text, both[1].text, subject.seed)


def embedders(folder: Path, seed: int) -> tuple[ClapEmbedder, ClapEmbedder]:
    """The CLAP of ``folder`` in single precision, and one of its kind with random weights."""
    tokenizer, extractor = load_processor(folder, "tokenizer"), load_processor(folder, "feature_extractor")
    model = load_part(folder, "text_encoder")
    with seeded(seed):
        untrained = transformers.ClapModel(model.config)
    return ClapEmbedder(model, extractor, tokenizer), ClapEmbedder(untrained, extractor, tokenizer, "untrained")


def recall(subject: Subject, both: Both, audio: Sequence[Tensor]) -> Score:
    """The share of clips, with embeddings (N, D), whose own caption is the nearest among up to 64 different ones.

    Compared with the share whose nearest caption has the same labels.
    """
    clips = subject.clips
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(subject.seed)).tolist()
    chosen = list({clips.prompts[i]: i for i in order}.values())[:CAPTIONS]
    labels = [clips.labels[i] for i in chosen]
    found, random = _nearest(both, [vectors[chosen] for vectors in audio], [clips.prompts[i] for i in chosen])
    right, without = ([float(answer == i) for i, answer in enumerate(answers)] for answers in (found, random))
    same = [labels[answer] == labels[i] for i, answer in enumerate(found)]
    compared = {"caption of the same labels": sum(same) / len(same), "chance": 1 / len(chosen)}
    return subject.score("clap", f"audio-to-text recall@1 among {len(chosen)} captions", right, without, compared)


def _retrieval(
    subject: Subject,
    kind: str,
    both: Both,
    audio: Sequence[Tensor],
    labels: Sequence[str],
    of: str = "",
    target: str = "",
) -> list[Score]:
    """The share of clips with these labels whose nearest prompt of a kind is the right one; nothing without clips."""
    if not labels:
        return []
    asked = ASKED[kind]
    answers = [list(asked).index(label) for label in labels]
    right, random = (
        [float(answer == true) for answer, true in zip(found, answers, strict=True)]
        for found in _nearest(both, audio, list(asked.values()))
    )
    name, compared = f"text retrieves the {kind} among {len(asked)}{of}", {"chance": 1 / len(asked)}
    return [subject.score("clap", name, right, random, compared, target)]


def _nearest(both: Both, audio: Sequence[Tensor], texts: list[str]) -> list[list[int]]:
    """For each CLAP, the number of the text that is nearest to each clip."""
    return [(vectors @ clap.text(texts).T).argmax(-1).tolist() for clap, vectors in zip(both, audio, strict=True)]


def _embed(clap: ClapEmbedder, clips: Clips) -> Tensor:
    """Audio embeddings (N, D)."""
    return torch.stack([clap.audio(waveform, clips.sample_rate) for waveform in clips.waveform])


def _asked_label(labels: Sequence[str], kind: str) -> str:
    """The label that a prompt of this kind asks for; "" where the clip is of another kind."""
    return labels[-1] if (len(labels) == 2) == (kind == "accompaniment") else ""


def _draw(path: Path, clap: ClapEmbedder, audio: Tensor, clips: Clips) -> None:
    """Draw the mean cosine of clips (rows, by labels) and the paper's prompts (columns)."""
    from matplotlib.figure import Figure

    texts = {text: label for kind in ("instrument", "genre") for label, text in ASKED[kind].items()}
    cosines = audio @ clap.text(list(texts)).T
    rows = {}
    for label in texts.values():
        if chosen := [i for i, labels in enumerate(clips.labels) if labels == [label]]:
            rows[label] = cosines[chosen].mean(0)
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
