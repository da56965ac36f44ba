"""Room and time that encodings take, estimated before they are made."""

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from apa_lightning.backbones.window_encoder import WindowEncoder
from apa_lightning.errors import InputError
from datamodules.encodings.encode import Clips, encode_windows
from datamodules.encodings.pieces import Piece, halved

_PROBED = 32  # clips that are read
_TIMED = 4  # windows that are encoded


@dataclass(frozen=True)
class Sizes:
    """What encodings take.

    Attributes:
        clips: Number of clips.
        size: Bytes.
        seconds: Time of one process.
    """

    clips: int = 0
    size: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Sizes") -> "Sizes":
        return Sizes(self.clips + other.clips, self.size + other.size, self.seconds + other.seconds)


def estimate(clips: Clips, absent: Sequence[Piece], encoder: WindowEncoder, device: torch.device | str) -> Sizes:
    """Estimate what the encodings of pieces take, from clips that are spread evenly over them."""
    total = sum(len(piece.clips) for piece in absent)
    numbers = itertools.chain.from_iterable(piece.clips for piece in absent)
    read = [clips[number] for number in itertools.islice(numbers, 0, None, -(-total // _PROBED) or 1)]
    windows = [window for clip in read for window in clip.windows]
    if not windows:
        return Sizes(total)
    list(encode_windows(windows[:1], encoder, device))  # the first call of a model takes longer
    plain = [{name: w[name] for name in ("waveform", "num_samples")} for w in windows[:_TIMED]]
    clock = time.perf_counter()
    columns = dict(encode_windows(plain, encoder, device))
    window_seconds = (time.perf_counter() - clock) / len(plain)
    window_bytes = {name: _bytes(values) / len(plain) for name, values in columns.items()}
    prompted = sum("prompt_waveform" in window for window in windows)

    first = absent[0].clips
    prompts = {caption for number in first for caption in clips.captions(clips.metadata(number))}
    clock = time.perf_counter()
    group, text = next(encoder.text_groups(list(itertools.islice(prompts, 2 * _TIMED))), ([""], {}))
    prompt_seconds = (time.perf_counter() - clock) / len(group)
    prompt_bytes = sum(_bytes(halved(values)) for values in text.values()) / len(group)

    about = sum(len(json.dumps(clip.metadata)) for clip in read)
    size = (len(windows) * sum(window_bytes.values()) + prompted * window_bytes["grid"] + about) / len(read)
    size += len(prompts) * prompt_bytes / len(first)
    seconds = len(windows) * window_seconds / len(read) + len(prompts) * prompt_seconds / len(first)
    return Sizes(total, total * size, total * seconds)


def _bytes(values: Tensor) -> int:
    return values.numel() * values.element_size()


def check_room(needed: Sizes, folder: Path) -> str:
    """Say what encodings take and how much room there is.

    Raises:
        InputError: If the disk is too small.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    takes = f"the encodings of {needed.clips:,} clips need about {in_bytes(needed.size)}"
    if needed.size > free:
        raise InputError(
            f"cache: {takes}, and {there} has {in_bytes(free)} free. Give a folder with more room (data.cache), fewer "
            "windows_per_clip, or fewer shards."
        )
    return f"{takes} in {folder} ({in_bytes(free)} free) and about {in_time(needed.seconds)} of one process"


def in_bytes(size: float) -> str:
    """A size in the unit that suits it: 1.9 TB."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"


def in_time(seconds: float) -> str:
    """A duration in the unit that suits it: 3.2 hours."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} seconds"
