"""Clips of shards as the frozen parts of a pocket folder encode them: encoded once, kept in files, read by number.

`<shard>-<piece>.safetensors` holds 200 clips of a shard: `mean`, `std` and `grid` of each window in half precision
(`WindowEncoder`), `prompt_grid` of the windows whose audio prompt is not the target, and in its header the weights and
clips that it was made of, each window's clip, and its row of `prompt_grid`. A file is written whole or not at all, so an
interrupted run resumes.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from datamodules.shards.index import Member
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
    for shard, group in itertools.groupby(range(len(table)), lambda number: table.group(number).shard):
        numbers = list(group)
        for part in range(0, len(numbers), PIECE):
            own = numbers[part : part + PIECE]
            if clips is not None and own[0] >= clips:
                return found
            members = [(g.key, *_place(g.audio), *_place(g.audio_prompt)) for g in map(table.group, own)]
            source = hashlib.sha256(repr(members).encode()).hexdigest()
            name = f"{Path(shard).stem}-{part // PIECE:04d}.safetensors"
            found.append(Piece(cache / name, range(own[0], own[-1] + 1), source))
    return found


def _place(member: Member | None) -> tuple[int | str, ...]:
    return (member.offset, member.size, member.sha256) if member else ()


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
            parts: list[dict[str, Tensor]] = []
            windows: list[dict[str, Any]] = []
            row = itertools.count()
            for start in range(0, len(piece.clips), _BATCH):
                fetched = [clips[i] for i in piece.clips[start : start + _BATCH]]
                quarantine.note([fault for f in fetched for fault in f.faults], len(fetched))
                if cut := [window for f in fetched if f.example for window in _windows(f.example, encoder.samples)]:
                    parts.append(encoder(torch.stack([w.waveform for w in cut]), [w.length for w in cut]))
                    windows += [w.about if w.prompt is None else w.about | {"prompt_row": next(row)} for w in cut]
                if prompts := [w.prompt for w in cut if w.prompt is not None]:
                    waveforms, lengths = zip(*prompts, strict=True)
                    parts[-1]["prompt_grid"] = encoder.grid(torch.stack(waveforms), lengths)
                bar.update(len(fetched))
            header = _origin(piece, weights, windows_per_clip) | {"windows": windows}
            names = dict.fromkeys(name for part in parts for name in part)
            tensors = {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
            # save_file would turn a full disk into an error of its own
            write_file(piece.path, save(tensors, metadata={"encodings": json.dumps(header)}), sole_writer=True)
    quarantine.finish_epoch()


class _Window(NamedTuple):
    """A window (S,) of a clip, its length without padding, what is kept about it, and the same of its audio prompt."""

    waveform: Tensor
    length: int
    about: dict[str, Any]
    prompt: tuple[Tensor, int] | None


def _windows(example: Mapping[str, Any], samples: int) -> Iterator[_Window]:
    """Cut an example into the windows in which it, and its audio prompt if that is another recording, hold sound."""
    kinds = [kind for kind in ("", "prompt_") if f"{kind}waveform" in example]
    for number, start in enumerate(range(0, example["num_samples"], samples)):
        lengths = [min(samples, example[f"{kind}num_samples"] - start) for kind in kinds]
        if min(lengths) > 0:
            waveforms = [example[f"{kind}waveform"][start : start + samples] for kind in kinds]
            about = {"key": example["key"], "window": number, "num_samples": lengths[0], "fields": example["metadata"]}
            prompt = (waveforms[1], lengths[1]) if len(kinds) > 1 else None
            yield _Window(waveforms[0], lengths[0], about, prompt)


class EncodedWindows(NumberedSamples):
    """Encoded windows by number, memory-mapped.

    An example is `key`, `mean`, `std`, `grid` (half precision), `prompt`, `labels` and `metadata`, and `prompt_grid` where
    the audio prompt is not the target; the prompt is drawn again in every epoch by (seed, epoch, key).

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
        rows = {"mean": place, "std": place, "grid": place, "prompt_grid": about.get("prompt_row")}
        example = {
            "key": about["key"],
            **{name: tensors[name][row] for name, row in rows.items() if row is not None},
            "prompt": self._captions.caption(fields["labels"], fields.get("caption"), draws),
            "labels": fields["labels"],
            "metadata": fields,
        }
        return Fetched(example, [])
