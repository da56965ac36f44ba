"""Shards as a list of samples: positioned reads, a length, and an order that is pure arithmetic."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from apa_lightning.audio import extremes
from apa_lightning.utils.rng import generator_for
from datamodules.remote import RefusedError, WholeOnlyError, is_remote, read_range
from datamodules.shards.decoding import MAX_AUDIO_BYTES, ExampleDecoder
from datamodules.shards.index import Member
from datamodules.shards.metadata import MAX_METADATA_BYTES
from datamodules.shards.samples import LOST, BadSample, Fault, Group
from datamodules.shards.table import SampleTable

_TRIES = 100
_APART = 1 << 16
"""Bytes between the members of a sample, headers and padding, up to which they are read at once."""
_UNREADABLE = "shard cannot be read"


class Fetched(NamedTuple):
    """What a dataset hands to the collate function.

    Attributes:
        example: The sample; None where a broken one has no substitute.
        faults: What is wrong with this sample and those that were tried before it.
        seen: Number of samples that were tried.
        stop: Reason to end the run, if any.
    """

    example: dict[str, Any] | None
    faults: list[Fault]
    seen: int = 1
    stop: str | None = None


class NumberedSamples(Dataset[Fetched], ABC):
    """Samples that are read by `index`, or by `(epoch, index)` where the epoch takes part in the draws."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""


class IndexedShards(NumberedSamples):
    """Samples of shards by number.

    Such shards are not streamed: with the offset and size of each member, samples are read in any order, from files, or by
    range requests. So the dataset
    has a length, it is shuffled over all shards at once, its only state is a position in the order of (seed, epoch),
    whatever the number of workers and ranks, and damage to one header loses nothing.

    Args:
        table: Places of the samples.
        decode: Makes an example of a sample's bytes.
        substitute: Give another sample for a broken one, drawn by (seed, epoch, its key), so that batches keep their
            size on every rank; otherwise the example is None.
    """

    def __init__(self, table: SampleTable, decode: ExampleDecoder, substitute: bool) -> None:
        self.table, self.decode, self.substitute = table, decode, substitute

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, item: int | tuple[int, int]) -> Fetched:
        """Read one sample."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        faults: list[Fault] = []
        draws: torch.Generator | None = None
        for tried in range(1, _TRIES + 1):
            group = self.table.group(index)
            try:
                example, noted = self.example(index, group, epoch)
                return Fetched(example, faults + noted, tried)
            except BadSample as bad:
                faults.append(Fault(group.shard, group.key, bad.reason, bad.detail))
            except OSError as error:  # no sample can be read, and none is broken
                return Fetched(None, faults, tried, f"'{group.shard}' cannot be read: {error}")
            if not self.substitute:
                return Fetched(None, faults)
            draws = draws or generator_for(self.decode.seed, "substitute", epoch, group.key)
            index = int(torch.randint(len(self), (), generator=draws))
        return Fetched(None, faults, _TRIES, f"{_TRIES} samples in a row were broken")

    def example(self, index: int, group: Group[Member], epoch: int) -> tuple[dict[str, Any], list[Fault]]:
        """Read sample `index`, which is located at `group`.

        Returns:
            The example, and remarks on it.

        Raises:
            BadSample: If it cannot be used.
            OSError: If the shard is on a server that cannot be reached.
        """
        audio, metadata, *prompt = read_members(group)
        example = self.decode(group.key, audio, metadata, epoch, *prompt)
        return example, remarks(group.shard, example)


def remarks(shard: str, example: dict[str, Any]) -> list[Fault]:
    """Remarks on a sample that is delivered: digital silence."""
    return [
        Fault(shard, example["key"], "digital silence", f"the window{of} holds only zeros", kept=True)
        for name, of in (("waveform", ""), ("prompt_waveform", " of its audio prompt"))
        if name in example and extremes(example[name]) == (0.0, 0.0)
    ]


def read_members(group: Group[Member], only: Sequence[Member] = ()) -> list[bytes]:
    """The bytes of a sample's audio, metadata and audio prompt, if it has one, or `only` of some of them.

    Raises:
        BadSample: If they are not what was written.
        OSError: If the shard is on a server that cannot be reached.
    """
    members = only or group.members
    for member in members:
        limit = MAX_METADATA_BYTES if member is group.metadata else MAX_AUDIO_BYTES
        if member.size > limit:
            raise BadSample("member too large", f"'{member.name}' has {member.size} bytes; at most {limit} are read")
    start, stop = min(m.offset for m in members), max(m.offset + m.size for m in members)
    if stop - start <= sum(m.size for m in members) + _APART:  # neighbors, as nearly always: one read is enough
        data = _read(group.shard, start, stop)
        found = [data[m.offset - start : m.offset - start + m.size] for m in members]
    else:
        found = [_read(group.shard, m.offset, m.offset + m.size) for m in members]
    for member, data in zip(members, found, strict=True):
        if len(data) < member.size:
            raise BadSample(LOST, f"'{member.name}' ends after {len(data)} of {member.size} bytes")
        if member.sha256 and not hashlib.sha256(data).hexdigest().startswith(member.sha256):
            raise BadSample("checksum differs", f"'{member.name}' is not what the index says was written")
    return found


def _read(shard: str, start: int, stop: int) -> bytes:
    if is_remote(shard):
        try:
            return read_range(shard, start, stop)[0]
        except (RefusedError, WholeOnlyError) as error:
            raise BadSample(_UNREADABLE, str(error)) from None
    try:
        # The file is opened for each read: that takes microseconds, and workers share no handles.
        with open(shard, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(stop - start)
    except OSError as error:
        raise BadSample(_UNREADABLE, error.strerror or str(error)) from None
