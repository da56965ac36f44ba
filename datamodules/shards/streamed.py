"""Shards that are read from front to back: `pipe:` commands, http(s) without indexes or ranges, and all mixed with these.

webdataset opens and shuffles; the rules of `datamodules.shards.samples` say what is delivered. Compared with the indexed
reader, a stream has three limits: its order depends on the number of ranks and workers; a resume inside an epoch reads
again what that epoch has delivered; and behind a damaged header the rest of a tar is lost (it is named where an index
stands next to the shard).
"""

import contextlib
import hashlib
import itertools
import random
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from torch.utils.data import IterableDataset, get_worker_info
from urllib3.exceptions import HTTPError
from webdataset import filters
from webdataset.gopen import Pipe, gopen_pipe

from apa_lightning.utils.rng import generator_for
from datamodules.remote import is_remote, open_stream
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.index import ShardIndex, read_index
from datamodules.shards.indexed import Fetched, remarks
from datamodules.shards.samples import LOST, BadSample, Fault, Group, group_members
from datamodules.shards.scan import fetch_index, is_meta


class StreamedShards(IterableDataset[Fetched]):
    """Samples of shards that can only be streamed.

    Shards are distributed over the workers of all ranks. If there are fewer shards than workers, several workers read the
    same shard and share its samples, so that no worker is idle.

    Args:
        urls: Shards, checked by `datamodules.shards.urls.expand_shards`.
        decode: Makes an example of a sample's bytes.
        endless: Shuffle, and start again when all shards are read (training); otherwise each sample comes once.
        shuffle_buffer: Number of encoded samples among which a worker draws.
        rank: Rank of this process.
        world_size: Number of processes.
        limit: Deliver at most this many samples in all, over all ranks.
    """

    def __init__(
        self,
        urls: Sequence[str],
        decode: ExampleDecoder,
        endless: bool,
        shuffle_buffer: int = 256,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
    ) -> None:
        self.urls, self.decode, self.endless, self.shuffle_buffer = list(urls), decode, endless, shuffle_buffer
        self.rank, self.world_size, self.limit = rank, world_size, limit
        self.epoch = 0

    def __iter__(self) -> Iterator[Fetched]:
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        reader, readers = self.rank * workers + (worker.id if worker else 0), self.world_size * workers
        # A reader that shares a shard may get none of its samples; in the next round it shares another shard.
        patience = 10 if len(self.urls) < readers else 1
        idle = seen = 0
        faults: list[Fault] = []  # they wait for the next whole sample, so that every batch is full
        for number in itertools.count():
            idle += 1
            for fetched in self._round(number, reader, readers):
                faults += fetched.faults
                seen += 1
                if fetched.example is not None:
                    yield Fetched(fetched.example, faults, seen)
                    faults, seen, idle = [], 0, 0
            if not self.endless:
                yield Fetched(None, faults, seen)
                return
            if idle == patience:
                why = "one reader's shards were read to their ends without a usable sample"
                yield Fetched(None, faults, seen, why)
                return

    def _round(self, number: int, reader: int, readers: int) -> Iterator[Fetched]:
        """Read this reader's share of all shards once; `number` counts the rounds of the epoch."""
        urls = list(self.urls)
        # A second round within an epoch has another order, other windows and other captions than the first.
        epoch = self.epoch if number == 0 else f"{self.epoch}.{number}"
        draws = random.Random(generator_for(self.decode.seed, "stream", epoch).initial_seed())
        if self.endless:
            draws.shuffle(urls)
        items = self._share(urls, reader, readers)
        if self.endless:
            items = filters.shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=draws)(items)
        if self.limit is not None:
            items = itertools.islice(items, len(range(reader, self.limit, readers)))
        for item in items:
            if isinstance(item, Fault):
                yield Fetched(None, [item])
                continue
            try:
                example = self.decode(item.key, item.audio, item.metadata, epoch, item.audio_prompt)
            except BadSample as bad:
                yield Fetched(None, [Fault(item.shard, item.key, bad.reason, bad.detail)])
            else:
                yield Fetched(example, remarks(item.shard, example))

    @staticmethod
    def _share(urls: list[str], reader: int, readers: int) -> Iterator[Group[bytes] | Fault]:
        if len(urls) >= readers:
            for url in urls[reader::readers]:
                yield from stream_shard(url)
            return
        own = reader % len(urls)
        sharing = len(range(own, readers, len(urls)))
        for place, item in enumerate(stream_shard(urls[own])):
            if place % sharing == reader // len(urls):
                yield item


def stream_shard(url: str) -> Iterator[Group[bytes] | Fault]:
    """Yield the samples of one shard that are as its index says, and a `Fault` for each that is not or is lost.

    Without an index a damaged shard gives one `Fault` for all that may be missing.
    """
    seen: set[str] = set()
    stream: IO[bytes] | None = None
    digests: dict[str, list[str]] | None = None
    trouble = ""
    try:
        if (index := _index_of(url)) is not None:
            digests = {member.key: [] for member in index.members}
            for member in index.members:
                digests[member.key].append(member.sha256)
        stream = _open(url)
        for item in group_members(url, _members(url, stream)):
            if isinstance(item, Fault) and not item.key:
                trouble = item.detail
                continue
            seen.add(item.key)
            yield item if digests is None or isinstance(item, Fault) else _verify(item, digests.get(item.key, []))
        if not trouble:
            stream.close()  # raises an error if the command failed
    except (OSError, HTTPError, ValueError) as error:
        trouble = trouble or str(error)
    finally:
        _abandon(stream)
    reason = LOST if seen else "shard cannot be read"
    if digests is not None:
        yield from (Fault(url, key, reason, trouble) for key in digests if key not in seen)
    elif trouble:
        yield Fault(url, "", reason, trouble)


def _verify(item: Group[bytes], digests: list[str]) -> Group[bytes] | Fault:
    """Compare a sample with the digests of its members: JSON and WAV have no checksum of their own."""
    if len(item.members) < len(digests):
        return Fault(item.shard, item.key, LOST, f"{len(item.members)} of its {len(digests)} members are there")
    for data in item.members:
        if "" not in digests and hashlib.sha256(data).hexdigest() not in digests:
            return Fault(item.shard, item.key, "checksum differs", "the sample is not what the index says was written")
    return item


def _members(url: str, stream: IO[bytes]) -> Iterator[tuple[str, bool, bytes] | Fault]:
    """Yield the members of a tar, and a last `Fault` if the tar does not end as it should.

    webdataset's `tar_file_iterator` drops links and devices without a word, and takes a damaged header for the end.
    """
    tail = _Tail(stream)
    try:
        with tarfile.open(fileobj=tail, mode="r|") as tar:  # type: ignore[call-overload]
            for info in tar:
                tar.members = []  # or they pile up in memory
                if not info.isdir() and not is_meta(info.name):
                    regular = info.isreg() and not info.issparse()
                    yield info.name, regular, tar.extractfile(info).read() if regular else b""
            end = tar.offset
        rest = tail.since(end)
        if not rest:
            yield Fault(url, "", LOST, "no end mark: the tar was cut, and samples may be missing")
        elif any(rest) or any(any(block) for block in iter(lambda: stream.read(1 << 20), b"")):
            yield Fault(url, "", LOST, f"the header at byte {end} cannot be read")
    except (tarfile.TarError, OSError, HTTPError) as error:
        yield Fault(url, "", LOST, str(error))


class _Tail:
    """A stream that keeps what was read last, because tarfile reads ahead of what it has parsed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._given = stream.stream if isinstance(stream, Pipe) else stream
        self._position = 0
        self._kept: deque[bytes] = deque(maxlen=4)

    def read(self, size: int) -> bytes:
        # webdataset's Pipe raises as soon as its command has failed; what the command wrote until then comes first.
        data = self._given.read(size) or self._stream.read(size)
        self._position += len(data)
        self._kept.append(data)
        return data

    def since(self, position: int) -> bytes:
        """Return what was read behind `position`."""
        kept = b"".join(self._kept)
        return kept[max(0, len(kept) - (self._position - position)) :] if self._position > position else b""


def _abandon(stream: IO[bytes] | None) -> None:
    """Close without waiting for a command that may not notice that its output is closed."""
    with contextlib.suppress(Exception):
        if process := getattr(stream, "proc", None):
            process.kill()
        if stream is not None:
            stream.close()


def _open(url: str) -> IO[bytes]:
    """Open a local path, http(s) URL or `pipe:` command; the caller has allowed the latter.

    webdataset's dispatcher rewrites URLs by environment variables, and its curl waits without end for a server that has
    become silent; so neither is used.
    """
    if url.startswith("pipe:"):
        return gopen_pipe(url)
    return open_stream(url) if is_remote(url) else open(url, "rb")


def _index_of(url: str) -> ShardIndex | None:
    if url.startswith("pipe:"):
        return None
    if not is_remote(url):
        return read_index(Path(url))
    with contextlib.suppress(OSError, HTTPError):
        return fetch_index(url)
    return None
