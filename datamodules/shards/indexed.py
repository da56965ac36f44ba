"""Local shards as a list of samples: positioned reads, a length, and an order that is pure arithmetic."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from apa_lightning.utils.rng import generator_for
from datamodules.shards.decoding import MAX_AUDIO_BYTES, ExampleDecoder
from datamodules.shards.index import AUDIO_EXTENSIONS, Member
from datamodules.shards.metadata import MAX_METADATA_BYTES
from datamodules.shards.samples import LOST, BadSample, Fault, Group
from datamodules.shards.scan import locate_samples

_TRIES = 100


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


class SampleTable:
    """Places of the samples of local shards, packed in arrays that forked workers share without copying.

    Args:
        shards: Local tar files, with or without an index.

    Raises:
        FileNotFoundError: If a shard is missing.
        InputError: If a shard is empty or not a tar file (see `locate_samples`).
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = [str(shard) for shard in shards]
        self.faults: list[Fault] = []
        """Samples that are known to be broken before anything is read."""
        keys, numbers, extensions, spans, digests = [], [], [], [], []
        for number, shard in enumerate(shards):
            for item in locate_samples(shard):
                if isinstance(item, Fault):
                    self.faults.append(item)
                    continue
                keys.append(item.key.encode("utf-8", "surrogateescape"))
                numbers.append(number)
                extensions.append(AUDIO_EXTENSIONS.index(item.extension))
                spans.append([item.audio.offset, item.audio.size, item.metadata.offset, item.metadata.size])
                digests += [bytes.fromhex(m.sha256).ljust(32, b"\0") for m in (item.audio, item.metadata)]
        self._keys = np.array(keys, dtype=bytes)
        self._shard_numbers = np.array(numbers, dtype=np.int32)
        self._extensions = np.array(extensions, dtype=np.int8)
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 4)
        self._digests = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 2, 32)

    def __len__(self) -> int:
        return len(self._keys)

    def audio_digests(self) -> Iterator[tuple[bytes, int]]:
        """Yield (SHA-256, number) of each clip in shards with an index."""
        for number, digest in enumerate(self._digests[:, 0]):
            if digest.any():
                yield digest.tobytes(), number

    def digest(self) -> str:
        """Digest of every sample's key, place and checksum, in their order; the shards may lie anywhere."""
        digest = hashlib.sha256()
        for array in (self._keys, self._shard_numbers, self._extensions, self._spans, self._digests):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def group(self, index: int) -> Group[Member]:
        """Return sample `index` as it was located."""
        key = bytes(self._keys[index]).decode("utf-8", "surrogateescape")
        extension = AUDIO_EXTENSIONS[self._extensions[index]]
        members = [
            Member(key, f"{key}.{kind}", int(offset), int(size), digest.tobytes().hex() if digest.any() else "")
            for kind, (offset, size), digest in zip(
                (extension, "json"), self._spans[index].reshape(2, 2), self._digests[index], strict=True
            )
        ]
        return Group(self.shards[self._shard_numbers[index]], key, extension, members[0], members[1])


class NumberedSamples(Dataset[Fetched], ABC):
    """Samples that are read by `index`, or by `(epoch, index)` where the epoch takes part in the draws."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""


class IndexedShards(NumberedSamples):
    """Samples of local shards by number.

    Local shards are not streamed: with the offset and size of each member, samples are read in any order. So the dataset
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
                example = self.decode(group.key, _read(group, group.audio), _read(group, group.metadata), epoch)
                faults += remarks(group.shard, example)
                return Fetched(example, faults, tried)
            except BadSample as bad:
                faults.append(Fault(group.shard, group.key, bad.reason, bad.detail))
            if not self.substitute:
                return Fetched(None, faults)
            draws = draws or generator_for(self.decode.seed, "substitute", epoch, group.key)
            index = int(torch.randint(len(self), (), generator=draws))
        return Fetched(None, faults, _TRIES, f"{_TRIES} samples in a row were broken")


def remarks(shard: str, example: dict[str, Any]) -> list[Fault]:
    """Remarks on a sample that is delivered: digital silence."""
    if example["waveform"].any():
        return []
    return [Fault(shard, example["key"], "digital silence", "the window holds only zeros", kept=True)]


def _read(group: Group[Member], member: Member) -> bytes:
    limit = MAX_METADATA_BYTES if member is group.metadata else MAX_AUDIO_BYTES
    if member.size > limit:
        raise BadSample("member too large", f"'{member.name}' has {member.size} bytes; at most {limit} are read")
    try:
        # The file is opened for each read: that takes microseconds, and workers share no handles.
        with open(group.shard, "rb", buffering=0) as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise BadSample("shard cannot be read", error.strerror or str(error)) from None
    if len(data) < member.size:
        raise BadSample(LOST, f"'{member.name}' ends after {len(data)} of {member.size} bytes")
    if member.sha256 and hashlib.sha256(data).hexdigest() != member.sha256:
        raise BadSample("checksum differs", f"'{member.name}' is not what the index says was written")
    return data
