"""Clips that scores are measured on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """Held-out clips of one length."""

    waveform: Tensor  # Waveforms (N, S) at 16 kHz
    keys: list[str]  # N names
    prompts: list[str] = field(default_factory=list)  # N prompts; empty for recordings
    labels: list[list[str]] = field(default_factory=list)  # N lists of AudioSet names; empty for recordings
    # The renderer's JSON of each clip (``kind``, ``instrument``, ``genre``, ``melody``, ``texture``, ``notes``);
    # of recordings ``melody``, the file's name
    metadata: list[dict[str, Any]] = field(default_factory=list)
    sample_rate: int = 16_000  # Sample rate in Hz

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, wanted: Callable[[dict[str, Any]], bool]) -> "Clips":
        """The clips whose metadata ``wanted`` accepts."""
        return self.take([i for i, fields in enumerate(self.metadata) if wanted(fields)])

    def take(self, chosen: Sequence[int]) -> "Clips":
        """The clips with these numbers, in this order."""

        def pick(rows: list) -> list:
            return [rows[i] for i in chosen] if rows else []

        texts = pick(self.keys), pick(self.prompts)
        return Clips(self.waveform[list(chosen)], *texts, pick(self.labels), pick(self.metadata), self.sample_rate)

    def draw(self, most: int, seed: int) -> "Clips":
        """At most ``most`` of the clips, in random order."""
        return self.take(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:most].tolist())

    def spread(self, most: int) -> "Clips":
        """At most ``most`` of the clips, evenly from first to last."""
        count = min(most, len(self))
        return self.take([i * len(self) // count for i in range(count)])
