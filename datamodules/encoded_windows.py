"""Clips of shards as the frozen parts of a pocket folder encode them: encoded once, kept in files, read by number.

`<shard>-<piece>.safetensors` holds 200 clips of a shard: of each window `mean`, `std` and `grid` in half precision
(`WindowEncoder`), and in its header which weights and clips they were made of and every window's clip. A file is written
whole or not at all, so what an interrupted run has finished is not done again.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import Dataset

from apa_lightning.errors import InputError
from apa_lightning.pocket.window_encoder import WindowEncoder, fingerprint
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.progress import progress
from apa_lightning.utils.rng import generator_for
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import Fetched, IndexedShards, SampleTable
from datamodules.shards.quarantine import Quarantine

PIECE = 200
_BATCH = 8  # clips encoded at once
_RATE = 16_000


@dataclass(frozen=True)
class Piece:
    """Some clips of one shard and the file of their encodings: `clips` are numbers in the table of the split."""

    path: Path
    clips: range
    source: str


def pieces(table: SampleTable, cache: Path, clips: int | None = None) -> list[Piece]:
    """The pieces that hold the first `clips` of a table (null: all); the last may hold more than are wanted."""
    shards = [table.group(i).shard for i in range(len(table))]
    found = []
    start = 0
    while start < min(len(table), clips or len(table)):
        first = shards.index(shards[start])
        end = min(start + PIECE, first + shards.count(shards[start]))
        name = f"{Path(shards[start]).stem}-{(start - first) // PIECE:04d}.safetensors"
        members = [(g.key, g.audio.offset, g.audio.size, g.audio.sha256) for g in map(table.group, range(start, end))]
        source = hashlib.sha256(repr(members).encode()).hexdigest()
        found.append(Piece(cache / name, range(start, end), source))
        start = end
    return found


def read_header(path: Path) -> dict[str, Any]:
    """What a file of encodings says of itself: `weights`, `source`, `windows_per_clip`, `windows`.

    Raises:
        InputError: It is no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["encodings"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"cache: {path} holds no encodings ({error}). Remove it.") from None


def missing(wanted: Sequence[Piece], weights: str, windows_per_clip: int) -> list[Piece]:
    """Those pieces that have no file yet.

    Raises:
        InputError: A file was made of other weights, other clips, or another number of windows.
    """
    for piece in wanted:
        if not piece.path.exists():
            continue
        header = read_header(piece.path)
        for name, value, what in (
            ("weights", weights, "another vae or audio_encoder"),
            ("source", piece.source, "other clips"),
            ("windows_per_clip", windows_per_clip, "another windows_per_clip"),
        ):
            if header.get(name) != value:
                raise InputError(
                    f"cache: {piece.path} was made with {what} than now. Remove {piece.path.parent}, "
                    "or give another folder."
                )
    return [piece for piece in wanted if not piece.path.exists()]


def encode_missing(
    table: SampleTable,
    wanted: Sequence[Piece],
    folder: Path,
    windows_per_clip: int,
    quarantine: Quarantine,
    device: torch.device | str = "cpu",
) -> None:
    """Encode the pieces that have no file yet, with a progress bar over their clips.

    Args:
        table: The samples.
        wanted: The pieces.
        folder: Folder of the pocket backbone.
        windows_per_clip: Windows taken of each clip, one after the other from its start; those beyond its end are left
            out.
        quarantine: Collects the clips that cannot be read; they are left out.
        device: Where the frozen parts run.

    Raises:
        InputError: `folder` lacks a part; a file was made of something else; too many clips are broken.
    """
    weights = fingerprint(folder)
    if not (left := missing(wanted, weights, windows_per_clip)):
        return
    encoder = WindowEncoder(folder, device)
    seconds = windows_per_clip * encoder.samples / _RATE
    clips = IndexedShards(table, ExampleDecoder(seconds, _RATE, 0.0, False, CaptionTemplates(), 0), substitute=False)
    with progress(sum(len(piece.clips) for piece in left), "encoding", "clip") as bar:
        for piece in left:
            parts, windows = [], []
            for start in range(0, len(piece.clips), _BATCH):
                fetched = [clips[i] for i in piece.clips[start : start + _BATCH]]
                quarantine.note([fault for f in fetched for fault in f.faults], len(fetched))
                if cut := list(_windows(fetched, encoder.samples)):
                    parts.append(encoder(torch.stack([w for w, _ in cut]), [about["num_samples"] for _, about in cut]))
                    windows += [about for _, about in cut]
                bar.update(len(fetched))
            header = {
                "weights": weights,
                "source": piece.source,
                "windows_per_clip": windows_per_clip,
                "windows": windows,
            }
            tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
            # save_file would turn a full disk into an error of its own
            write_file(piece.path, save(tensors, metadata={"encodings": json.dumps(header)}), sole_writer=True)
    quarantine.finish_epoch()


def _windows(fetched: Sequence[Fetched], samples: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """The windows (S,) that hold sound of each clip, and what is kept about them."""
    for example in (f.example for f in fetched):
        if example is None:
            continue
        for number, window in enumerate(example["waveform"].split(samples)):
            if (length := min(samples, example["num_samples"] - number * samples)) > 0:
                about = {"key": example["key"], "window": number, "num_samples": length, "fields": example["metadata"]}
                yield window, about


class EncodedWindows(Dataset[Fetched]):
    """Encoded windows by number, memory-mapped.

    An example is `key`, `mean`, `std`, `grid` (half precision), `prompt`, `labels` and `metadata`; the prompt is drawn anew
    in every epoch by (seed, epoch, key).

    Args:
        pieces: Encoded before.
        clips: Use the first so many only; null: all.
        first_only: Use the first window of each clip only.
        captions: Makes the prompt from the labels.
        seed: The run's seed.

    Raises:
        InputError: There is no window.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        captions: CaptionTemplates,
        seed: int,
        clips: int | None = None,
        first_only: bool = False,
    ) -> None:
        self._captions, self._seed = captions, seed
        self._tensors = [load_file(piece.path) for piece in pieces]
        windows = [read_header(piece.path)["windows"] for piece in pieces]
        self._about = [about for part in windows for about in part]
        self._ends = list(accumulate(map(len, windows)))
        order = {key: i for i, key in enumerate(dict.fromkeys(about["key"] for about in self._about))}
        wanted = len(order) if clips is None else clips
        self._rows = [
            row
            for row, about in enumerate(self._about)
            if order[about["key"]] < wanted and not (first_only and about["window"])
        ]
        if not self._rows:
            raise InputError("No clip of `train_shards` or `validation_shards` could be encoded.")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int | tuple[int, int]) -> Fetched:
        """One window: `index`, or `(epoch, index)` where the epoch takes part in drawing the prompt."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        row = self._rows[index]
        number = bisect_right(self._ends, row)
        place = row - (self._ends[number - 1] if number else 0)
        about, fields = self._about[row], self._about[row]["fields"]
        draws = generator_for(self._seed, "caption", epoch, about["key"], about["window"])
        example = {
            "key": about["key"],
            **{name: tensor[place] for name, tensor in self._tensors[number].items()},
            "prompt": self._captions.caption(fields["labels"], fields.get("caption"), draws),
            "labels": fields["labels"],
            "metadata": fields,
        }
        return Fetched(example, [])
