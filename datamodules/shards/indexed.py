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
from datamodules.shards.samples import LOST, PROMPT, BadSample, Fault, Group
from datamodules.shards.scan import locate_samples

_TRIES = 100
_NONE = Member("", "", 0, 0)


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
                members = (item.audio, item.metadata, item.audio_prompt or _NONE)
                prompt = AUDIO_EXTENSIONS.index(item.prompt_extension) if item.audio_prompt else -1
                extensions.append([AUDIO_EXTENSIONS.index(item.extension), prompt])
                spans.append([(m.offset, m.size) for m in members])
                digests += [bytes.fromhex(m.sha256).ljust(32, b"\0") for m in members]
        self._keys = np.array(keys, dtype=bytes)
        self._shard_numbers = np.array(numbers, dtype=np.int32)
        # In each row: audio, JSON (which has no extension here), audio prompt.
        self._extensions = np.array(extensions, dtype=np.int8).reshape(-1, 2)
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 3, 2)
        self._digests = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 3, 32)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def audio_prompts(self) -> int:
        """Number of samples whose audio prompt is not the target itself."""
        return int((self._extensions[:, 1] >= 0).sum())

    def audio_digests(self) -> Iterator[tuple[bytes, int]]:
        """Yield (SHA-256, number) of each clip in shards with an index."""
        for number, digest in enumerate(self._digests[:, 0]):
            if digest.any():
                yield digest.tobytes(), number

    def parts(self, most: int) -> Iterator[tuple[Path, int, range, str]]:
        """Yield the samples of each shard in parts of at most `most`: shard, number of the part, samples, and a digest.

        The digest covers keys, places and checksums. Without an index there are no checksums, and it covers the time of the
        last change of the shard.
        """
        ends = np.searchsorted(self._shard_numbers, np.arange(len(self.shards)), side="right").tolist()
        for shard, first, end in zip(map(Path, self.shards), [0, *ends], ends, strict=False):
            changed = b"" if self._digests[first:end, :2].any(axis=2).all() else str(shard.stat().st_mtime_ns).encode()
            for part, start in enumerate(range(first, end, most)):
                own = slice(start, min(start + most, end))
                digest = hashlib.sha256(b"\0".join([*self._keys[own].tolist(), changed]))
                for array in (self._extensions[own], self._spans[own], self._digests[own]):
                    digest.update(np.ascontiguousarray(array).data)
                yield shard, part, range(own.start, own.stop), digest.hexdigest()

    def digest(self) -> str:
        """Digest of every sample's key, place and checksum, in their order; the shards may lie anywhere."""
        arrays = [self._keys, self._shard_numbers, self._extensions[:, 0], self._spans[:, :2], self._digests[:, :2]]
        if self.audio_prompts:  # without any the digest is that of checkpoints from before there were prompts
            arrays += [self._extensions[:, 1], self._spans[:, 2], self._digests[:, 2]]
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def group(self, index: int) -> Group[Member]:
        """Return sample `index` as it was located."""
        key = bytes(self._keys[index]).decode("utf-8", "surrogateescape")
        extension, prompt = (AUDIO_EXTENSIONS[number] if number >= 0 else "" for number in self._extensions[index])
        audio, metadata, audio_prompt = (
            Member(key, f"{key}.{kind}", int(offset), int(size), digest.tobytes().hex() if digest.any() else "")
            for kind, (offset, size), digest in zip(
                (extension, "json", PROMPT + prompt), self._spans[index], self._digests[index], strict=True
            )
        )
        shard = self.shards[self._shard_numbers[index]]
        return Group(shard, key, extension, audio, metadata, audio_prompt if prompt else None, prompt)


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
                example, noted = self.example(index, group, epoch)
                return Fetched(example, faults + noted, tried)
            except BadSample as bad:
                faults.append(Fault(group.shard, group.key, bad.reason, bad.detail))
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
        """
        audio, metadata, *prompt = (read_member(group, member) for member in group.members)
        example = self.decode(group.key, audio, metadata, epoch, *prompt)
        return example, remarks(group.shard, example)


def remarks(shard: str, example: dict[str, Any]) -> list[Fault]:
    """Remarks on a sample that is delivered: digital silence."""
    return [
        Fault(shard, example["key"], "digital silence", f"the window{of} holds only zeros", kept=True)
        for name, of in (("waveform", ""), ("prompt_waveform", " of its audio prompt"))
        if name in example and not example[name].any()
    ]


def read_member(group: Group[Member], member: Member) -> bytes:
    """The bytes of one member of a sample.

    Raises:
        BadSample: If they are not what was written.
    """
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
