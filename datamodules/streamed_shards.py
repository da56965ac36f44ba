"""Shards that are read from front to back: http(s), `pipe:` commands, and local tars mixed with these.

webdataset opens, unpacks and shuffles; the rules of `datamodules.samples` say what is delivered. What a stream cannot
promise, and the indexed reader can: the order depends on the number of ranks and workers, a resume inside an epoch
reads again what that epoch has delivered, and behind a damaged header the rest of a tar is lost (and named, where an
index stands beside the shard).
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from torch.utils.data import IterableDataset, get_worker_info
from webdataset import filters, tariterators
from webdataset.gopen import gopen_curl, gopen_pipe

from apa_lightning.errors import InputError
from apa_lightning.random_draws import generator_for
from datamodules.decoding import ExampleDecoder
from datamodules.indexed_shards import Fetched, remarks
from datamodules.samples import LOST, BadSample, Fault, Group, group_members
from datamodules.shard_index import ShardIndex, parse_index, read_index


class StreamedShards(IterableDataset[Fetched]):
    """Samples of shards that can only be streamed.

    Shards are dealt out to all workers of all ranks. Where there are fewer shards than workers, several workers read
    the same shard and share out its samples, so nobody is left without work.

    Args:
        urls: Shards, checked by `datamodules.shards.expand_shards`.
        decode: Makes an example of a sample's bytes.
        endless: Shuffle, and begin again when all shards are read (training); otherwise each sample comes once.
        shuffle_buffer: Encoded samples among which a worker draws.
        rank, world_size: This process among those of the run.
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
        number = 0
        faults: list[Fault] = []  # wait for the next whole sample, so that every batch is full
        seen = 0
        while True:
            empty = True
            for example, fault in self._once(number, reader, readers):
                faults += fault
                seen += 1
                if example is not None:
                    yield Fetched(example, faults, seen)
                    faults, seen, empty = [], 0, False
            if empty and self.endless:
                yield Fetched(None, faults, seen, "one reader's shards were read to their ends without a usable sample")
                return
            if not self.endless:
                yield Fetched(None, faults, seen)
                return
            number += 1

    def _once(
        self, number: int, reader: int, readers: int
    ) -> Iterator[tuple[dict[str, Any] | None, list[Fault]]]:
        """This reader's share of all shards in round `number` of the epoch: (example or None, faults)."""
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
                yield None, [item]
                continue
            try:
                example = self.decode(item.key, item.audio, item.metadata, epoch)
            except BadSample as bad:
                yield None, [Fault(item.shard, item.key, bad.reason, bad.detail)]
            else:
                yield example, remarks(item.shard, example)

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
    """All samples of one shard, and a `Fault` for each that its index promises and that did not come."""
    seen: set[str] = set()
    trouble = ""
    try:
        index = _index_of(url)
        stream = open_stream(url)
    except (OSError, ValueError) as error:
        yield Fault(url, "", "shard cannot be read", str(error))
        return
    with stream:
        try:
            members = tariterators.tar_file_iterator(stream, skip_meta=r"(.*/)?(\._|__[^/]*__$)")
            for item in group_members(url, ((m["fname"], True, m["data"]) for m in members)):
                seen.add(item.key)
                yield item
            # A tar reader takes a damaged header for the end. What follows the real end is only zeros.
            if any(any(block) for block in iter(lambda: stream.read(1 << 20), b"")):
                trouble = "a header in the middle cannot be read"
        except Exception as error:  # tarfile, curl and the command raise what they like; the shard ends here
            trouble = f"{type(error).__name__}: {error}"
    if index is not None:
        for key in dict.fromkeys(m.key for m in index.members):
            if key not in seen:
                yield Fault(url, key, LOST, trouble)
    elif trouble:
        yield Fault(url, "", LOST, trouble)


def open_stream(url: str) -> IO[bytes]:
    """Open a local path, http(s) URL (through curl) or `pipe:` command; the caller has allowed the latter.

    webdataset's openers are called by name, because its dispatcher rewrites URLs by environment variables.
    """
    scheme = url.partition(":")[0] if ":" in url else ""
    if scheme == "pipe":
        return gopen_pipe(url)
    if scheme in ("http", "https"):
        return gopen_curl(url)
    return open(url, "rb")


def _index_of(url: str) -> ShardIndex | None:
    if url.startswith("pipe:"):
        return None
    if not url.startswith(("http:", "https:")):
        return read_index(Path(url))
    parts = urlsplit(url)
    path = PurePosixPath(parts.path)
    index_url = urlunsplit(parts._replace(path=str(path.with_suffix(".index.json"))))
    try:
        with open_stream(index_url) as stream:
            text = b"".join(iter(lambda: stream.read(1 << 20), b""))
        return parse_index(text, index_url, path.name)
    except (OSError, InputError):
        return None  # none there; a server may answer with a page of its own
