"""Linear probes on AudioMAE's tokens, for the instrument of a clip and the pitch class of a column, and its decoder's error."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import fbank
from apa_lightning.backbones.architectures import POCKET, save_audio_encoder
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError
from apa_lightning.pocket.measures.linear_probe import probe
from apa_lightning.pocket.parts.audio_mae import PICTURES, masked_patches, random_order
from apa_lightning.pocket.patch_decoder import DECODER, PatchDecoder, encode_visible, patches
from apa_lightning.pocket.report.pictures import draw_masked
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.rng import seeded

FOLDS = 5
MOST_COLUMNS = 2000  # keeps a probe of 1,280 features at a few seconds
INSIDE = 0.8  # share of a column that one note must fill
MASK_SHARE, MOST_MASKED = 0.8, 64


class PitchProbe(NamedTuple):
    """A probe for the pitch class of a column."""

    name: str
    rate: int = 1  # Pooling rate omega
    mean: bool = False  # Whether the tokens of a column are averaged
    strength: float = 0.1  # Inverse penalty: a strong one for many features and few columns
    target: str = ""


PITCH_PROBES = (
    PitchProbe("pitch class of a column, tokens side by side", target=">= 0.7"),
    PitchProbe("pitch class of a column, mean token", mean=True, strength=1.0),
    PitchProbe("pitch class of a column pooled by omega 2", 2),
    PitchProbe("pitch class of a column pooled by omega 4", 4),
)


class Columns(NamedTuple):
    """Single columns of the grids of some clips."""

    clip: np.ndarray  # Numbers (N,) of the clips
    place: np.ndarray  # Numbers (N,) of the columns
    pitch: np.ndarray  # Pitch classes (N,)
    melody: list[str]  # N names


def measure(subject: Subject) -> list[Score]:
    """Measure the probes, and the decoder if it was written too; picture: ``audio_mae.png``. Recordings are not used.

    Raises:
        InputError: If there are too few melodies played alone for the probes.
    """
    trained, random = AudioMAE.from_pretrained(subject.folder / "audio_encoder"), untrained(subject.seed)
    solos = subject.clips.where(lambda fields: fields["kind"] == "solo")
    banks = fbank(solos.waveform, *trained.input_size)
    size = trained.encoder.patch_embed.patch_size[0]
    grids = {
        "trained": encode(trained, banks),
        "untrained": encode(random, banks),
        "filter-bank patches": patches(banks, size).unflatten(1, trained.grid_size),
    }
    melodies, labels = ([fields[name] for fields in solos.metadata] for name in ("melody", "instrument"))
    _require_melodies(melodies)
    right = {name: probe(grid.mean(dim=(1, 2)).numpy(), labels, melodies, FOLDS) for name, grid in grids.items()}
    scores = [_score(subject, "instrument of a solo, mean token", right, ">= 0.95")]
    for kind in PITCH_PROBES:
        count = trained.grid_size[0] // kind.rate
        columns = sounding_columns(solos.metadata, count, trained.window_seconds, subject.seed)
        scores.append(_pitch(subject, kind, columns, grids))
    if (subject.folder / "audio_encoder" / DECODER).is_file():
        scores.append(_masked(subject, trained, random))
    return scores


@torch.no_grad()
def _masked(subject: Subject, trained: AudioMAE, random: AudioMAE) -> Score:
    """Share of the hidden patches' variance that the decoder does not predict, and pictures of one clip of each kind.

    Compared with the decoder on the tokens of an untrained encoder.
    """
    clips, decoder = subject.clips, PatchDecoder.load(subject.folder / "audio_encoder" / DECODER)
    first = {fields["kind"]: i for i, fields in reversed(list(enumerate(clips.metadata)))}
    chosen = clips.take([*first.values(), *(i for i in range(len(clips)) if i not in first.values())][:MOST_MASKED])
    banks = fbank(chosen.waveform, *trained.input_size)
    order = random_order(banks, trained.grid_size, torch.Generator().manual_seed(subject.seed))
    seen, hidden = masked_patches(order, MASK_SHARE)
    target = patches(banks, trained.encoder.patch_embed.patch_size[0])
    mean = target.mean(dim=(0, 1))
    predicted, without = (decoder(encode_visible(model.encoder, banks, seen), seen) for model in (trained, random))

    def unexplained(values: Tensor) -> Tensor:
        errors, deviations = (values - target).square().mean(dim=2), (mean - target).square().mean(dim=2)
        return (errors * hidden).sum(dim=1) / (deviations * hidden).sum(dim=1)

    if subject.pictures is not None:
        few = slice(PICTURES)
        draw_masked(subject.pictures / "audio_mae.png", banks[few], predicted[few], hidden[few], chosen.keys)
    name = f"share of the variance of hidden patches ({MASK_SHARE:.0%} are hidden) that is not predicted"
    return subject.score("audio_mae", name, unexplained(predicted), unexplained(without))


def untrained(seed: int) -> AudioMAE:
    """The same encoder with random weights."""
    with seeded(seed), tempfile.TemporaryDirectory() as temporary:
        save_audio_encoder(
            POCKET.build_audio_encoder(), Path(temporary) / "audio_encoder", POCKET.audio_encoder_sizes()
        )
        return AudioMAE.from_pretrained(Path(temporary) / "audio_encoder")


@torch.no_grad()
def encode(model: AudioMAE, banks: Tensor, batch_size: int = 16) -> Tensor:
    """The unpooled grids (B, T', F', D) of filter banks (B, 1, T, F)."""
    tokens = torch.cat([model.encode_fbank(part) for part in banks.split(batch_size)])
    return tokens[:, model.encoder.num_prefix_tokens :].unflatten(1, model.grid_size)


def sounding_columns(metadata: Sequence[dict[str, Any]], count: int, seconds: float, seed: int) -> Columns:
    """The columns in which one note of a solo melody sounds, at most :data:`MOST_COLUMNS`, drawn by the seed.

    A grid has ``count`` columns in so many seconds. ``notes`` of the metadata are [start, end, midi key, velocity] in seconds.
    """
    width = seconds / count
    rows = [
        (clip, place, key % 12)
        for clip, fields in enumerate(metadata)
        if fields.get("texture") == "melody"
        for place in range(count)
        if (key := _sounding(fields["notes"], place * width, (place + 1) * width)) is not None
    ]
    kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_COLUMNS])
    clip, place, pitch = np.array([rows[i] for i in kept], dtype=int).reshape(-1, 3).T
    return Columns(clip, place, pitch, [metadata[i]["melody"] for i in clip])


def _sounding(notes: Sequence[Sequence[float]], start: float, end: float) -> int | None:
    """The key that sounds during most of the time from ``start`` to ``end``; None where none fills enough of it."""
    inside, key = max(((min(note[1], end) - max(note[0], start), int(note[2])) for note in notes), default=(0.0, 0))
    return key if inside >= INSIDE * (end - start) else None


def _pitch(subject: Subject, kind: PitchProbe, columns: Columns, grids: dict[str, Tensor]) -> Score:
    """Mean over clips of the share of columns whose pitch class the probe predicts."""
    _require_melodies(columns.melody)
    right = {}
    for name, grid in grids.items():
        pooled = pool_tokens(grid, kind.rate).unflatten(1, (grid.shape[1] // kind.rate, -1))
        rows = pooled[columns.clip, columns.place]
        rows = rows.mean(dim=1) if kind.mean else rows.flatten(1)
        hits = probe(rows.numpy(), columns.pitch.tolist(), columns.melody, FOLDS, kind.strength)
        right[name] = np.array([hits[columns.clip == clip].mean() for clip in np.unique(columns.clip)])
    return _score(subject, kind.name, right, kind.target)


def _require_melodies(melodies: Sequence[str]) -> None:
    if (count := len(set(melodies))) < FOLDS:
        raise InputError(
            f"clips: {count} melodies of solos; a probe in {FOLDS} folds needs as many. Give more held-out clips."
        )


def _score(subject: Subject, name: str, right: dict[str, np.ndarray], target: str) -> Score:
    trained, random = right.pop("trained"), right.pop("untrained")
    compared = {kind: float(rows.mean()) for kind, rows in right.items()}
    return subject.score("audio_mae", name, trained, random, compared, target)
