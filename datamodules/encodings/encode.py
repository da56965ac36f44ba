"""Encodes the clips of pieces that have no file yet; any number of processes and machines share the work."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from apa_lightning.backbones.window_encoder import WindowEncoder
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from apa_lightning.utils.progress import progress
from datamodules.encodings.pieces import Contents, Origin, Piece, halved, write_piece
from datamodules.loading.readers import loader_options
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import read_members, remarks
from datamodules.shards.metadata import parse_metadata
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.samples import BadSample, Fault
from datamodules.shards.table import SampleTable

_BATCH = 8  # windows encoded at once
_WAIT = 1.0  # seconds between two looks at what other processes have done


class Clip(NamedTuple):
    """A clip's windows with the columns of `ExampleDecoder.windows`, its metadata, what is wrong with it, and why to stop."""

    windows: list[dict[str, Any]]
    metadata: dict[str, Any] | None
    faults: list[Fault]
    stop: str = ""


class Clips(Dataset[Clip]):
    """The windows of the clips of a table, by number.

    Args:
        table: The samples.
        decode: Cuts the windows.
        windows_per_clip: Most windows of a clip.
    """

    def __init__(self, table: SampleTable, decode: ExampleDecoder, windows_per_clip: int) -> None:
        self.table, self.decode, self.windows_per_clip = table, decode, windows_per_clip

    def __getitem__(self, index: int) -> Clip:
        """Read one clip."""
        group = self.table.group(index)
        try:
            audio, metadata, *prompt = read_members(group)
            fields = parse_metadata(metadata)
            windows = self.decode.windows(group.key, self.windows_per_clip, audio, *prompt)
        except BadSample as bad:
            return Clip([], None, [Fault(group.shard, group.key, bad.reason, bad.detail)])
        except OSError as error:  # no clip can be read, and none is broken
            return Clip([], None, [], _unreachable(group.shard, error))
        noted = [fault for window in windows for fault in remarks(group.shard, {"key": group.key, **window})]
        return Clip(windows, fields, list(dict.fromkeys(noted)))

    def metadata(self, index: int) -> dict[str, Any] | None:
        """The metadata of a clip alone; None if they are broken.

        Raises:
            InputError: If the server of its shard cannot be reached.
        """
        group = self.table.group(index)
        try:
            return parse_metadata(read_members(group, [group.metadata])[0])
        except BadSample:
            return None
        except OSError as error:
            raise InputError(_unreachable(group.shard, error)) from None

    def captions(self, metadata: dict[str, Any] | None) -> list[str]:
        """Every prompt that training can give to a clip; none if it is broken."""
        return self.decode.captions.captions(metadata["labels"], metadata.get("caption")) if metadata else []


def _unreachable(shard: str, error: OSError) -> str:
    return (
        f"shard '{shard}' cannot be read: {error}. Start again when its server can be reached; what is encoded is kept."
    )


def encode_missing(
    clips: Clips,
    absent: Sequence[Piece],
    origin: Origin,
    encoder: WindowEncoder,
    quarantine: Quarantine,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    shown: bool = True,
) -> None:
    """Encode pieces that have no file yet, and wait for those that other processes are encoding.

    Each piece is encoded under a lock, which the system releases when a process dies.

    Args:
        clips: The clips.
        absent: Their pieces without a file.
        origin: What the encodings are made with.
        encoder: Makes them.
        quarantine: Collects the clips that cannot be read; the files say so.
        device: Where the frozen parts are.
        num_workers: Processes that read and decode.
        shown: Whether to report the progress.

    Raises:
        InputError: If too many clips are broken, or the server of a shard cannot be reached.
    """
    # Processes that start together begin at different places.
    shift = os.getpid() % max(1, len(absent))
    left = [*absent[shift:], *absent[:shift]]
    with progress(sum(len(piece.clips) for piece in absent), "encoding", "clip", shown=shown) as bar:
        while left:
            waiting = []
            for piece in left:
                piece.path.parent.mkdir(parents=True, exist_ok=True)
                with file_lock(f"{piece.path}.lock", wait=False) as held:
                    if held and not piece.path.exists():
                        tensors, contents = _encoded(clips, piece, encoder, quarantine, device, num_workers)
                        write_piece(piece.path, tensors, contents, origin)
                if piece.path.exists():
                    bar.update(len(piece.clips))
                else:
                    waiting.append(piece)
            if left := waiting:
                time.sleep(_WAIT)
    quarantine.finish_epoch()


def _encoded(
    clips: Clips,
    piece: Piece,
    encoder: WindowEncoder,
    quarantine: Quarantine,
    device: torch.device | str,
    num_workers: int,
) -> tuple[dict[str, Tensor], Contents]:
    """The tensors and the contents of a piece's file."""
    contents, prompts = Contents(), dict[str, None]()
    rows, prompt_rows = itertools.count(), itertools.count()
    parts: dict[str, list[Tensor]] = {}
    options = loader_options(num_workers) | {"collate_fn": list}
    for read in DataLoader(clips, _BATCH, sampler=piece.clips, **options):
        quarantine.note([fault for clip in read for fault in clip.faults], len(read))
        windows = []
        for clip in read:
            if clip.stop:
                raise InputError(clip.stop)
            windows += clip.windows
            prompts |= dict.fromkeys(clips.captions(clip.metadata))
            places = [
                [w["start"], w["num_samples"], next(rows), next(prompt_rows) if "prompt_waveform" in w else None]
                for w in clip.windows
            ]
            faults = [[fault.reason, fault.detail, fault.kept] for fault in clip.faults]
            contents.clips.append({"metadata": clip.metadata, "windows": places, "faults": faults})
        for name, values in encode_windows(windows, encoder, device):
            parts.setdefault(name, []).append(values)
    tensors = {name: torch.cat(values) for name, values in parts.items()}
    for number, (group, columns) in enumerate(encoder.text_groups(list(prompts))):
        tensors |= {f"text.{number}.{name}": halved(values) for name, values in columns.items()}
        contents.prompts |= {prompt: (number, row) for row, prompt in enumerate(group)}
    return tensors, contents


@torch.no_grad()
def encode_windows(
    windows: Sequence[dict[str, Any]], encoder: WindowEncoder, device: torch.device | str
) -> Iterator[tuple[str, Tensor]]:
    """Yield the columns of windows by name, in batches."""
    for start in range(0, len(windows), _BATCH):
        batch = windows[start : start + _BATCH]
        waveform = torch.stack([w["waveform"] for w in batch]).to(device)
        lengths = [w["num_samples"] for w in batch]
        yield from ((name, halved(values)) for name, values in encoder.columns(waveform, lengths).items())
        if prompted := [w for w in batch if "prompt_waveform" in w]:
            waveform = torch.stack([w["prompt_waveform"] for w in prompted]).to(device)
            yield "prompt_grid", halved(encoder.grid(waveform, [w["prompt_num_samples"] for w in prompted]))
