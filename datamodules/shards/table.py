"""Places of all samples of shards, packed in arrays: millions of clips take less than 100 bytes each."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.remote import CONNECTIONS, is_remote
from datamodules.shards.index import AUDIO_EXTENSIONS, Member
from datamodules.shards.samples import PROMPT, Fault, Group
from datamodules.shards.scan import locate_remote_samples, locate_samples

DIGEST_BYTES = 16
"""Leading bytes of a SHA-256 that are kept. They tell any two contents apart, and take half the memory."""
_NUMBERS = {extension: number for number, extension in enumerate(AUDIO_EXTENSIONS)}
_NONE = Member("", "", 0, 0)


class _Places(NamedTuple):
    """The audio, the JSON, or the audio prompts of all samples: N offsets, N sizes, and digests (N, `DIGEST_BYTES`)."""

    offsets: NDArray[np.integer]
    sizes: NDArray[np.integer]
    digests: NDArray[np.uint8]


class SampleTable:
    """Places of the samples of shards, in arrays that forked workers share without copying.

    Args:
        shards: Local tar files, with or without an index, and URLs of those with an index.

    Raises:
        FileNotFoundError: If a shard is missing.
        InputError: If a shard is empty or not a tar file (see `locate_samples`), or its server cannot be reached.
        NotIndexedError: If a shard on a server can only be streamed.
    """

    def __init__(self, shards: Sequence[str | Path]) -> None:
        self.shards = [str(shard) for shard in shards]
        self.faults: list[Fault] = []
        """Samples that are known to be broken before anything is read."""
        packing = _Packing()
        for located in _located(self.shards):
            groups = []
            for item in located:
                if isinstance(item, Fault):
                    self.faults.append(item)
                else:
                    groups.append(item)
            packing.add(groups)
        self._digest = packing.digest()
        self._shard_ends = np.array(packing.shard_ends, np.int64)
        self._keys, self._key_ends = np.frombuffer(packing.keys, np.uint8), _smallest(packing.key_ends)
        # Of audio and audio prompt, (N, 2), as numbers in `AUDIO_EXTENSIONS`; -1 where there is no audio prompt.
        self._extensions = np.frombuffer(packing.extensions, np.int8).reshape(-1, 2)
        self._audio, self._metadata = packing.audio.places(), packing.metadata.places()
        self._prompts = packing.prompts.places() if packing.has_prompts else None

    def __len__(self) -> int:
        return int(self._shard_ends[-1]) if self.shards else 0

    @property
    def audio_prompts(self) -> int:
        """Number of samples whose audio prompt is not the target itself."""
        return int((self._extensions[:, 1] >= 0).sum())

    def digest(self) -> str:
        """Digest of every sample's key, place and checksum, in their order; the shards may lie anywhere."""
        return self._digest

    def clips(self, shard: int) -> range:
        """Numbers of the samples of a shard, which is given by its number."""
        return range(int(self._shard_ends[shard - 1]) if shard else 0, int(self._shard_ends[shard]))

    def parts(self, most: int) -> Iterator[tuple[str, int, range, str]]:
        """Yield the samples of each shard in parts of at most `most`: shard, number of the part, samples, and a digest.

        The digest covers keys, places and checksums. Without an index there are no checksums, and it covers the time of the
        last change of the shard. Indexes, and headers where there are none, are read again for it.
        """
        for number, (shard, located) in enumerate(zip(self.shards, _located(self.shards), strict=True)):
            groups = [item for item in located if isinstance(item, Group)]  # with their whole digests
            known = is_remote(shard) or all(group.audio.sha256 and group.metadata.sha256 for group in groups)
            changed = b"" if known else str(Path(shard).stat().st_mtime_ns).encode()
            clips = self.clips(number)
            for part, start in enumerate(range(0, len(clips), most)):
                own = slice(start, start + most)
                yield shard, part, clips[own], _digest_of_part(groups[own], changed)

    def same_audio(self, other: "SampleTable") -> tuple[int, int] | None:
        """Return the numbers of two clips, here and in `other`, with the same bytes of audio; None if there are none.

        Only shards with an index can be compared.
        """
        own, others = self._audio.digests, other._audio.digests
        starts, other_starts = (digests.view(np.uint64)[:, 0] for digests in (own, others))
        for number in np.flatnonzero(np.isin(starts, other_starts) & own.any(axis=1)):
            same = np.flatnonzero((others == own[number]).all(axis=1))
            if same.size:
                return int(number), int(same[0])
        return None

    def group(self, index: int) -> Group[Member]:
        """Return sample `index` as it was located; of its digests the first `DIGEST_BYTES`."""
        start, end = int(self._key_ends[index - 1]) if index else 0, int(self._key_ends[index])
        key = self._keys[start:end].tobytes().decode("utf-8", "surrogateescape")
        extension, prompt = (AUDIO_EXTENSIONS[number] if number >= 0 else "" for number in self._extensions[index])

        def member(places: _Places, kind: str) -> Member:
            digest = places.digests[index]
            checked = digest.tobytes().hex() if digest.any() else ""
            return Member(key, f"{key}.{kind}", int(places.offsets[index]), int(places.sizes[index]), checked)

        shard = self.shards[int(np.searchsorted(self._shard_ends, index, side="right"))]
        audio, metadata = member(self._audio, extension), member(self._metadata, "json")
        audio_prompt = member(self._prompts, PROMPT + prompt) if self._prompts and prompt else None
        return Group(shard, key, extension, audio, metadata, audio_prompt, prompt)


def _digest_of_part(groups: Sequence[Group[Member]], changed: bytes) -> str:
    packing = _Packing()
    packing.add(groups)
    keys = [group.key.encode("utf-8", "surrogateescape") for group in groups]
    digest = hashlib.sha256(b"\0".join([*keys, changed]))
    digest.update(packing.extensions)
    spans, digests = np.zeros((len(keys), 3, 2), np.int64), np.zeros((len(keys), 3, 32), np.uint8)
    kinds = (packing.audio, packing.metadata, packing.prompts)
    for kind, places in enumerate(kinds if packing.has_prompts else kinds[:2]):
        spans[:, kind], digests[:, kind] = places.spans(slice(None)), places.whole_digests(slice(None))
    digest.update(spans.data)
    digest.update(digests.data)
    return digest.hexdigest()


def _located(shards: Sequence[str]) -> Iterator[Iterable[Group[Member] | Fault]]:
    """The samples of each shard; those on servers are asked for a few at a time, because each answer takes its time."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for start in range(0, len(shards), CONNECTIONS):
            batch = shards[start : start + CONNECTIONS]
            remote = {url: pool.submit(_locate_remote, url) for url in filter(is_remote, batch)}
            for shard in batch:
                yield remote.pop(shard).result() if shard in remote else locate_samples(Path(shard))


def _locate_remote(url: str) -> list[Group[Member] | Fault]:
    return list(locate_remote_samples(url))


class _Packing:
    """Buffers that grow with each shard. They are large, so that their memory goes back to the system."""

    def __init__(self) -> None:
        self.shard_ends: list[int] = []
        self.keys, self.key_ends, self.extensions = bytearray(), array("q"), array("b")
        self.audio, self.metadata, self.prompts = _PackedPlaces(), _PackedPlaces(), _PackedPlaces()
        self.has_prompts = False

    def add(self, groups: Sequence[Group[Member]]) -> None:
        """Add the samples of the next shard."""
        for group in groups:
            self.keys += group.key.encode("utf-8", "surrogateescape")
            self.key_ends.append(len(self.keys))
            self.extensions.append(_NUMBERS[group.extension])
            self.extensions.append(_NUMBERS[group.prompt_extension] if group.audio_prompt else -1)
            self.audio.add(group.audio)
            self.metadata.add(group.metadata)
            if group.audio_prompt and not self.has_prompts:
                self.has_prompts = True
                for _ in range(len(self.audio.sizes) - 1):
                    self.prompts.add(_NONE)
            if self.has_prompts:
                self.prompts.add(group.audio_prompt or _NONE)
        self.shard_ends.append(len(self.key_ends))

    def digest(self) -> str:
        """See `SampleTable.digest`."""
        digest = hashlib.sha256()
        for part in self._digested():
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()[:16]

    def _digested(self) -> Iterator[np.ndarray]:
        """What the digest covers, in the order and the types that it has had from the start."""
        shards = [slice(start, end) for start, end in zip([0, *self.shard_ends], self.shard_ends, strict=False)]
        ends = np.frombuffer(self.key_ends, np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        width = int((ends - starts).max(initial=1))
        for shard in shards:
            spans = zip(starts[shard].tolist(), ends[shard].tolist(), strict=True)
            yield np.array([bytes(self.keys[start:end]) for start, end in spans], dtype=f"S{width}")
        yield from (np.full(shard.stop - shard.start, number, np.int32) for number, shard in enumerate(shards))
        extensions = np.frombuffer(self.extensions, np.int8).reshape(-1, 2)
        yield extensions[:, 0]
        both = (self.audio, self.metadata)
        yield from (np.stack([places.spans(shard) for places in both], axis=1) for shard in shards)
        yield from (np.stack([places.whole_digests(shard) for places in both], axis=1) for shard in shards)
        if self.has_prompts:  # without any the digest is that of data from before there were prompts
            yield extensions[:, 1]
            yield from map(self.prompts.spans, shards)
            yield from map(self.prompts.whole_digests, shards)


class _PackedPlaces:
    def __init__(self) -> None:
        self.offsets, self.sizes, self.digests = array("q"), array("q"), bytearray()

    def add(self, member: Member) -> None:
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.digests += bytes.fromhex(member.sha256) or bytes(32)

    def spans(self, samples: slice) -> np.ndarray:
        return np.stack([np.frombuffer(column, np.int64)[samples] for column in (self.offsets, self.sizes)], axis=1)

    def whole_digests(self, samples: slice) -> np.ndarray:
        return np.frombuffer(self.digests, np.uint8).reshape(-1, 32)[samples]

    def places(self) -> _Places:
        digests = self.whole_digests(slice(None))[:, :DIGEST_BYTES].copy()
        return _Places(_smallest(self.offsets), _smallest(self.sizes), digests)


def _smallest(numbers: "array[int]") -> NDArray[np.integer]:
    """The same numbers, none negative, in the smallest type that holds them."""
    whole = np.frombuffer(numbers, np.int64)
    return whole.astype(np.min_scalar_type(whole.max(initial=0)))
