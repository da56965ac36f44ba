"""Linear probes on AudioMAE's tokens, for the instrument of a clip and the pitch class of a column, and its decoder's error."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import fbank
from apa_lightning.backbones.architectures import POCKET, save_audio_encoder
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError
from apa_lightning.pocket.parts.audio_mae import PICTURES, random_order
from apa_lightning.pocket.patch_decoder import DECODER, PatchDecoder, encode_visible, patches
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.linear_probe import probe
from apa_lightning.pocket.report.pictures import draw_masked
from apa_lightning.pocket.report.scores import Score
from apa_lightning.utils.rng import seeded

FOLDS = 5
MOST_COLUMNS = 2000  # keeps a probe of 1,280 features at a few seconds
INSIDE = 0.8  # share of a column that one note must fill
MASK_SHARE, MOST_MASKED = 0.8, 64
STRENGTH = 0.1  # of probes with many features and few columns
#: Probes for pitch: name, pooling rate omega, whether the tokens of a column are averaged.
PITCH_PROBES = (
    ("pitch class of a column, tokens side by side", 1, False),
    ("pitch class of a column, mean token", 1, True),
    ("pitch class of a column pooled by omega 2", 2, False),
    ("pitch class of a column pooled by omega 4", 4, False),
)


@dataclass(frozen=True)
class Columns:
    """Single columns of the grids of some clips.

    Attributes:
        clip: Numbers (N,) of the clips.
        place: Numbers (N,) of the columns.
        pitch: Pitch classes (N,).
        melody: N names.
    """

    clip: np.ndarray
    place: np.ndarray
    pitch: np.ndarray
    melody: list[str]


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure the probes, and the decoder if it was written too; picture: ``audio_mae.png``. Recordings are not used.

    Raises:
        InputError: If there are too few melodies played alone for the probes.
    """
    trained = AudioMAE.from_pretrained(folder / "audio_encoder")
    solos = clips.where(lambda fields: fields["kind"] == "solo")
    banks = fbank(solos.waveform, *trained.input_size)
    size = trained.encoder.patch_embed.patch_size[0]
    grids = {
        "trained": encode(trained, banks),
        "untrained": encode(untrained(seed), banks),
        "filter-bank patches": patches(banks, size).unflatten(1, trained.grid_size),
    }
    scores = [_instrument(solos, grids, seed)]
    for name, rate, mean in PITCH_PROBES:
        columns = sounding_columns(solos.metadata, trained.grid_size[0] // rate, trained.window_seconds, seed)
        scores.append(_pitch(name, columns, grids, rate, mean, seed))
    if (folder / "audio_encoder" / DECODER).is_file():
        scores.append(_masked(folder, trained, clips, seed, pictures))
    return scores


@torch.no_grad()
def _masked(folder: Path, trained: AudioMAE, clips: Clips, seed: int, pictures: Path | None) -> Score:
    """Share of the hidden patches' variance that the decoder does not predict, and pictures of one clip of each kind.

    Compared with the decoder on the tokens of an untrained encoder.
    """
    decoder = PatchDecoder.load(folder / "audio_encoder" / DECODER)
    first = {fields["kind"]: i for i, fields in reversed(list(enumerate(clips.metadata)))}
    chosen = clips.take([*first.values(), *(i for i in range(len(clips)) if i not in first.values())][:MOST_MASKED])
    banks = fbank(chosen.waveform, *trained.input_size)
    generator = torch.Generator().manual_seed(seed)
    order = random_order(banks, trained.grid_size, generator)
    seen = order[:, : round(order.shape[1] * (1 - MASK_SHARE))]
    hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, seen, False)
    target = patches(banks, trained.encoder.patch_embed.patch_size[0])
    encoders = (trained.encoder, untrained(seed).encoder)
    predicted, without = (decoder(encode_visible(encoder, banks, seen), seen) for encoder in encoders)
    mean = target.mean(dim=(0, 1))

    def unexplained(values: Tensor) -> Tensor:
        errors, deviations = (values - target).square().mean(dim=2), (mean - target).square().mean(dim=2)
        return (errors * hidden).sum(dim=1) / (deviations * hidden).sum(dim=1)

    if pictures is not None:
        few = slice(PICTURES)
        draw_masked(pictures / "audio_mae.png", banks[few], predicted[few], hidden[few], chosen.keys)
    name = f"share of the variance of hidden patches ({MASK_SHARE:.0%} are hidden) that is not told"
    return Score.of("audio_mae", name, unexplained(predicted), seed, unexplained(without))


def untrained(seed: int) -> AudioMAE:
    """The same encoder with random weights."""
    with seeded(seed), tempfile.TemporaryDirectory() as temporary:
        save_audio_encoder(POCKET.build_audio_encoder(), Path(temporary) / "audio_encoder", POCKET)
        return AudioMAE.from_pretrained(Path(temporary) / "audio_encoder")


@torch.no_grad()
def encode(model: AudioMAE, banks: Tensor, batch_size: int = 16) -> Tensor:
    """The unpooled grids (B, T', F', D) of filter banks (B, 1, T, F)."""
    tokens = torch.cat([model.encode_fbank(part) for part in banks.split(batch_size)])
    return tokens[:, model.encoder.num_prefix_tokens :].unflatten(1, model.grid_size)


def sounding_columns(metadata: Sequence[dict[str, Any]], count: int, seconds: float, seed: int) -> Columns:
    """The columns in which one note of a solo melody sounds, at most :data:`MOST_COLUMNS`, drawn by the seed.

    Args:
        metadata: Metadata of the clips; ``notes`` are [start, end, midi key, velocity] in seconds.
        count: Columns of a grid.
        seconds: Duration of a grid.
        seed: Seed of the draw.
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


def _instrument(solos: Clips, grids: dict[str, Tensor], seed: int) -> Score:
    melodies = [fields["melody"] for fields in solos.metadata]
    _require_melodies(melodies)
    labels = [fields["instrument"] for fields in solos.metadata]
    right = {name: probe(grid.mean(dim=(1, 2)).numpy(), labels, melodies, FOLDS) for name, grid in grids.items()}
    return _score("instrument of a solo, mean token", right, seed, ">= 0.95")


def _pitch(name: str, columns: Columns, grids: dict[str, Tensor], rate: int, mean: bool, seed: int) -> Score:
    """Mean over clips of the share of columns whose pitch class the probe predicts."""
    _require_melodies(columns.melody)
    right = {}
    for kind, grid in grids.items():
        pooled = pool_tokens(grid, rate).unflatten(1, (grid.shape[1] // rate, -1))
        rows = pooled[columns.clip, columns.place]
        rows = rows.mean(dim=1) if mean else rows.flatten(1)
        hits = probe(rows.numpy(), columns.pitch.tolist(), columns.melody, FOLDS, 1.0 if mean else STRENGTH)
        right[kind] = np.array([hits[columns.clip == clip].mean() for clip in np.unique(columns.clip)])
    return _score(name, right, seed, "" if rate > 1 or mean else ">= 0.7")


def _require_melodies(melodies: Sequence[str]) -> None:
    if (count := len(set(melodies))) < FOLDS:
        raise InputError(
            f"clips: {count} melodies of solos; a probe in {FOLDS} folds needs as many. Give more held-out clips."
        )


def _score(name: str, right: dict[str, np.ndarray], seed: int, target: str) -> Score:
    values = {kind: right.pop(kind) for kind in ("trained", "untrained")}
    compared = {kind: float(rows.mean()) for kind, rows in right.items()}
    return Score.of("audio_mae", name, values["trained"], seed, values["untrained"], compared=compared, target=target)
