"""Clips of shards as the frozen parts of a pocket folder encode them: encoded once, kept in files, read by number.

`<shard>-<piece>.safetensors` holds 200 clips of a shard: `mean`, `std` and `grid` of each window in half precision
(`WindowEncoder`), and in its header the weights and clips that it was made of and each window's clip. A file is written
whole or not at all, so an interrupted run resumes.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.pocket.window_encoder import WindowEncoder, fingerprint
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.progress import progress
from apa_lightning.utils.rng import generator_for
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import Fetched, IndexedShards, NumberedSamples, SampleTable
from datamodules.shards.quarantine import Quarantine

PIECE = 200
_BATCH = 8  # clips encoded at once
_RATE = 16_000
_CHANGED = {
    "weights": "another vae or audio_encoder",
    "source": "other clips",
    "windows_per_clip": "another windows_per_clip",
}


@dataclass(frozen=True)
class Piece:
    """Some clips of one shard and the file of their encodings: `clips` are numbers in the table of the split."""

    path: Path
    clips: range
    source: str


def pieces(table: SampleTable, cache: Path, clips: int | None = None) -> list[Piece]:
    """Divide the first `clips` of a table (None: all) into pieces; the last piece may hold more than are wanted."""
    found: list[Piece] = []
    for shard, group in groupby(range(len(table)), lambda number: table.group(number).shard):
        numbers = list(group)
        for part in range(0, len(numbers), PIECE):
            own = numbers[part : part + PIECE]
            if clips is not None and own[0] >= clips:
                return found
            members = [(g.key, g.audio.offset, g.audio.size, g.audio.sha256) for g in map(table.group, own)]
            source = hashlib.sha256(repr(members).encode()).hexdigest()
            name = f"{Path(shard).stem}-{part // PIECE:04d}.safetensors"
            found.append(Piece(cache / name, range(own[0], own[-1] + 1), source))
    return found


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a file of encodings: `weights`, `source`, `windows_per_clip`, `windows`.

    Raises:
        InputError: If it is not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["encodings"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"cache: {path} holds no encodings ({error}). Remove it.") from None


def _origin(piece: Piece, weights: str, windows_per_clip: int) -> dict[str, Any]:
    """What a file of encodings is made of, as its header says it."""
    return {"weights": weights, "source": piece.source, "windows_per_clip": windows_per_clip}


def missing(wanted: Sequence[Piece], weights: str, windows_per_clip: int) -> list[Piece]:
    """Return the pieces that have no file yet.

    Raises:
        InputError: If a file was made of other weights, other clips, or another number of windows.
    """
    for piece in wanted:
        if not piece.path.exists():
            continue
        header, origin = read_header(piece.path), _origin(piece, weights, windows_per_clip)
        if changed := [what for name, what in _CHANGED.items() if header.get(name) != origin[name]]:
            raise InputError(
                f"cache: {piece.path} was made with {changed[0]} than now. Remove {piece.path.parent}, "
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
        InputError: If `folder` lacks a part, a file was made of something else, or too many clips are broken.
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
            header = _origin(piece, weights, windows_per_clip) | {"windows": windows}
            tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
            # save_file would turn a full disk into an error of its own
            write_file(piece.path, save(tensors, metadata={"encodings": json.dumps(header)}), sole_writer=True)
    quarantine.finish_epoch()


def _windows(fetched: Sequence[Fetched], samples: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield the windows (S,) of each clip that hold sound, and what is kept about them."""
    for example in (f.example for f in fetched):
        if example is None:
            continue
        for number, window in enumerate(example["waveform"].split(samples)):
            if (length := min(samples, example["num_samples"] - number * samples)) > 0:
                about = {"key": example["key"], "window": number, "num_samples": length, "fields": example["metadata"]}
                yield window, about


class EncodedWindows(NumberedSamples):
    """Encoded windows by number, memory-mapped.

    An example is `key`, `mean`, `std`, `grid` (half precision), `prompt`, `labels` and `metadata`; the prompt is drawn again
    in every epoch by (seed, epoch, key).

    Args:
        pieces: Pieces that have their files.
        captions: Makes the prompt from the labels.
        seed: Seed of the run.
        clips: Use only the first so many clips; None: all.
        first_only: Use only the first window of each clip.

    Raises:
        InputError: If there is no window.
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
        rows = []
        for piece in pieces:
            tensors = load_file(piece.path)
            rows += [(tensors, place, about) for place, about in enumerate(read_header(piece.path)["windows"])]
        wanted = set(list(dict.fromkeys(about["key"] for *_, about in rows))[:clips])
        self._rows = [row for row in rows if row[2]["key"] in wanted and not (first_only and row[2]["window"])]
        if not self._rows:
            raise InputError("No clip of `train_shards` or `validation_shards` could be encoded.")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int | tuple[int, int]) -> Fetched:
        """Read one window."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        tensors, place, about = self._rows[index]
        fields = about["fields"]
        draws = generator_for(self._seed, "caption", epoch, about["key"], about["window"])
        example = {
            "key": about["key"],
            **{name: tensor[place] for name, tensor in tensors.items()},
            "prompt": self._captions.caption(fields["labels"], fields.get("caption"), draws),
            "labels": fields["labels"],
            "metadata": fields,
        }
        return Fetched(example, [])
