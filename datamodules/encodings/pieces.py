"""Files of encodings: some clips of a shard as the frozen parts of a model encode them.

`<shard>-<part>-<digest>.safetensors` holds up to 100 clips of a shard. Of each window it has what the backbone's codec makes of
it (`mean` and `std` of latents, or `codes`) and `grid`, and `prompt_grid` where the audio prompt is another recording; of each
group of prompts the tensors of their text condition, `text.<group>.<name>`: floating-point values in half precision. `contents`
is JSON that says which rows belong to which clip and prompt. The header says what the file was made of. A file is written
whole or not at all.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file
from datamodules.remote import is_remote
from datamodules.shards.table import SampleTable

CLIPS = 100
_OPEN = 128  # files that a process keeps open


@dataclass(frozen=True)
class Origin:
    """What every file of a cache is made with.

    Attributes:
        weights: Digest of the weights that encode.
        windows: Windows of a clip, their length in seconds and sample rate, and the length of the shortest clip.
        captions: Digest of the settings of captions.
    """

    weights: str
    windows: str
    captions: str


_CHANGED = {
    "weights": "another backbone or audio encoder, or in another precision,",
    "windows": "another windows_per_clip, audio_length_in_s, sample_rate or min_seconds",
    "captions": "other caption_templates, lowercase_labels or prefer_captions",
}


@dataclass(frozen=True)
class Piece:
    """Some clips of one shard, by their numbers in the table of the split, and the file of their encodings."""

    path: Path
    clips: range


def pieces(table: SampleTable, folder: Path | None) -> list[Piece]:
    """Divide the clips of a table into pieces.

    A file is named by a digest of its clips, so that clips that have changed are encoded again.

    Args:
        table: The samples.
        folder: Folder of the encodings; None: `encoded` next to each shard, which must be local.
    """
    return [
        Piece(
            (folder or Path(shard).parent / "encoded") / f"{_stem(shard)}-{part:04d}-{digest[:12]}.safetensors", clips
        )
        for shard, part, clips, digest in table.parts(CLIPS)
    ]


def _stem(shard: str) -> str:
    return PurePosixPath(urlsplit(shard).path).stem if is_remote(shard) else Path(shard).stem


def missing(wanted: Sequence[Piece], origin: Origin) -> list[Piece]:
    """Return the pieces that have no file yet.

    Raises:
        InputError: If a file is damaged, or was made with something else.
    """
    absent = []
    for piece in wanted:
        try:
            with safe_open(piece.path, "pt") as file:
                made = json.loads((file.metadata() or {})["origin"])
        except FileNotFoundError:
            absent.append(piece)
            continue
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise InputError(f"cache: {piece.path} holds no encodings ({error}). Remove it.") from None
        for name, value in asdict(origin).items():
            if made.get(name) != value:
                raise InputError(
                    f"cache: {piece.path} was made with {_CHANGED[name]} than this run has. Give the same settings, another "
                    f"folder (data.cache), or remove {piece.path.parent}."
                )
    return absent


@dataclass
class Contents:
    """What a file of encodings holds.

    Attributes:
        clips: For each clip `metadata` (None where it is broken), `windows` (start in seconds, samples without padding, row of
            its tensors, row of `prompt_grid` or None), and `faults` (reason, detail, whether it is delivered).
        prompts: Group and row of each prompt.
    """

    clips: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[str, tuple[int, int]] = field(default_factory=dict)


def write_piece(path: Path, tensors: Mapping[str, Tensor], contents: Contents, origin: Origin) -> None:
    """Write a file of encodings; no other process may be writing it."""
    text = torch.frombuffer(bytearray(json.dumps(asdict(contents)).encode()), dtype=torch.uint8)
    # save_file would turn a full disk into an error of its own.
    whole = save({**tensors, "contents": text}, metadata={"origin": json.dumps(asdict(origin))})
    write_file(path, whole, sole_writer=True)


def halved(values: Tensor) -> Tensor:
    """Values as they are kept: floating-point ones in half precision, on the CPU.

    Raises:
        InputError: If values are not finite in half precision.
    """
    kept = (values.half() if values.is_floating_point() else values).cpu().contiguous()
    if not kept.isfinite().all():
        raise InputError(
            f"cache: the model's encodings reach {float(values.abs().max()):.3g}, which half precision does not hold. Train "
            "without a cache (datamodules.AudioSetDataModule)."
        )
    return kept


class OpenPiece:
    """A file of encodings, read row by row."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, "pt")
        contents = json.loads(self._file.get_tensor("contents").numpy().tobytes())
        self.clips, self._prompts = contents["clips"], contents["prompts"]
        names = self._file.keys()
        self._names = [name for name in names if name != "contents"]
        self._columns = [name for name in self._names if not name.startswith("text.")]

    def columns(self, row: int, prompt_row: int | None) -> dict[str, Tensor]:
        """The encoding and the `grid` of a window, and `prompt_grid` if it has a row."""
        rows = {name: prompt_row if name == "prompt_grid" else row for name in self._columns}
        return {name: self._file.get_slice(name)[place] for name, place in rows.items() if place is not None}

    def text(self, prompt: str) -> dict[str, Tensor] | None:
        """The tensors of a prompt's condition; None if prompts are not kept."""
        if not self._prompts:
            return None
        group, row = self._prompts[prompt]
        start = f"text.{group}."
        return {n.removeprefix(start): self._file.get_slice(n)[row] for n in self._names if n.startswith(start)}


@functools.lru_cache(_OPEN)
def open_piece(path: Path) -> OpenPiece:
    """Open a file of encodings, or return it as it was opened before."""
    return OpenPiece(path)
