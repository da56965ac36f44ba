"""Whether the pocket CLAP knows which text belongs to which clip."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import Tensor

from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.report.figures import Clips, Figure
from apa_lightning.pocket.report.text_probe import text_figures
from apa_lightning.pocket.text.prompts import ASKED, INSTRUMENTS
from apa_lightning.utils.bootstrap import bootstrap
from apa_lightning.utils.pretrained import no_progress_bars

CAPTIONS = 64
TARGETS = {"instrument": ">= 0.95", "genre": ">= 0.90", "accompaniment": ""}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """Retrieval by the paper's prompts among eight, by caption among 64, and a linear probe on the text branch.

    Args:
        folder: holds ``tokenizer``, ``text_encoder`` and ``feature_extractor``. clips: held-out, with labels and prompts.
        seed: of the untrained CLAP, of the 64 captions and of the intervals. pictures: folder for ``clap.png``.
        recordings: real recordings; where a key begins with an instrument's name, that is to be found.

    Raises:
        InputError: ``folder`` lacks a part.
    """
    require(folder, ("tokenizer", "text_encoder", "feature_extractor"))
    trained, untrained = embedders(folder, seed)
    heard, raw = (_embed(clap, clips) for clap in (trained, untrained))
    figures = []
    for kind, asked in ASKED.items():
        chosen = [i for i in range(len(clips)) if _said(clips.labels[i], kind) in asked]
        if chosen:
            answers = [list(asked).index(_said(clips.labels[i], kind)) for i in chosen]
            right, before = (
                (vectors[chosen] @ clap.text(list(asked.values())).T).argmax(-1).eq(torch.tensor(answers)).float()
                for clap, vectors in ((trained, heard), (untrained, raw))
            )
            figures.append(
                Figure(
                    "clap",
                    f"text retrieves the {kind} among {len(asked)}",
                    *bootstrap(right.numpy(), seed),
                    len(chosen),
                    float(before.mean()),
                    {"chance": 1 / len(asked)},
                    TARGETS[kind],
                )
            )
    figures.append(recall(trained, untrained, heard, raw, clips, seed))
    if recordings is not None:
        figures += _recorded(trained, untrained, recordings, seed)
    if pictures is not None:
        _draw(pictures / "clap.png", trained, heard, clips)
    return figures + text_figures("clap", trained.text, untrained.text, seed)


def embedders(folder: Path, seed: int) -> tuple[ClapEmbedder, ClapEmbedder]:
    """The CLAP of ``folder`` in fp32, and one of its kind with random weights."""
    with no_progress_bars():
        tokenizer = transformers.RobertaTokenizer.from_pretrained(folder / "tokenizer")
        extractor = transformers.ClapFeatureExtractor.from_pretrained(folder / "feature_extractor")
        model = transformers.ClapModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = transformers.ClapModel(model.config)
    return ClapEmbedder(model, extractor, tokenizer), ClapEmbedder(untrained, extractor, tokenizer, "untrained")


def recall(
    trained: ClapEmbedder, untrained: ClapEmbedder, heard: Tensor, raw: Tensor, clips: Clips, seed: int
) -> Figure:
    """How often a clip's own caption, among up to 64 different ones, is the nearest to it; beside, one of the same labels.

    Args:
        heard, raw: audio embeddings (N, D) of ``clips`` by both.
    """
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = list({clips.prompts[i]: i for i in order}.values())[:CAPTIONS]
    texts, labels = [clips.prompts[i] for i in chosen], [clips.labels[i] for i in chosen]
    found, before = (
        (vectors[chosen] @ clap.text(texts).T).argmax(-1).tolist()
        for clap, vectors in ((trained, heard), (untrained, raw))
    )
    right = [float(answer == place) for place, answer in enumerate(found)]
    same = [labels[answer] == labels[place] for place, answer in enumerate(found)]
    return Figure(
        "clap",
        f"audio-to-text recall@1 among {len(chosen)} captions",
        *bootstrap(right, seed),
        len(chosen),
        sum(answer == place for place, answer in enumerate(before)) / len(chosen),
        {"caption of the same labels": sum(same) / len(same), "chance": 1 / len(chosen)},
    )


def _recorded(trained: ClapEmbedder, untrained: ClapEmbedder, recordings: Clips, seed: int) -> list[Figure]:
    names = list(INSTRUMENTS)
    named = {
        i: name for i, key in enumerate(recordings.keys) for name in names if key.startswith(name.replace(" ", "_"))
    }
    if not named:
        return []
    chosen = recordings.take(list(named))
    answers = torch.tensor([names.index(name) for name in named.values()])
    texts = list(ASKED["instrument"].values())
    right, before = (
        (_embed(clap, chosen) @ clap.text(texts).T).argmax(-1).eq(answers).float() for clap in (trained, untrained)
    )
    values = bootstrap(right.numpy(), seed)
    title = f"text retrieves the instrument among {len(names)}: real recordings"
    return [Figure("clap", title, *values, len(named), float(before.mean()), {"chance": 1 / len(names)})]


def _embed(clap: ClapEmbedder, clips: Clips) -> Tensor:
    """Audio embeddings (N, D)."""
    return torch.stack([clap.audio(waveform, clips.sample_rate) for waveform in clips.waveform])


def _said(labels: Sequence[str], kind: str) -> str:
    """The label that a prompt of this kind asks for; "" where the clip is of another kind."""
    if (len(labels) == 2) != (kind == "accompaniment"):
        return ""
    return labels[-1]


def _draw(path: Path, clap: ClapEmbedder, heard: Tensor, clips: Clips) -> None:
    """Mean cosine of clips (rows, by labels) and the paper's prompts (columns)."""
    from matplotlib.figure import Figure as Canvas

    texts = {text: label for kind in TARGETS if TARGETS[kind] for label, text in ASKED[kind].items()}
    cosines = heard @ clap.text(list(texts)).T
    rows = {
        label: cosines[[i for i, labels in enumerate(clips.labels) if labels == [label]]] for label in texts.values()
    }
    rows = {label: values.mean(0) for label, values in rows.items() if len(values)}
    if not rows:
        return
    canvas = Canvas(figsize=(9, 7), layout="constrained")
    axis = canvas.subplots()
    image = axis.imshow(torch.stack(list(rows.values())), aspect="auto", vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_xticks(range(len(texts)), list(texts), rotation=90, fontsize=8)
    axis.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axis.set_title("Mean cosine of held-out clips and the paper's prompts", fontsize=9)
    canvas.colorbar(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=90)
