"""Clips that the loader reads per CPU second, compared with webdataset's own pipeline on the same FLAC shards."""

from collections.abc import Iterator

from scale import Scale
from sound import write_shards
from timing import Result, Side, alternate, compare

SECONDS = 10.24


def ask(scale: Scale) -> Iterator[Result]:
    """The one question."""
    shards = [str(path) for path in write_shards(scale.work / f"shards-{scale.clips}", scale.clips, SECONDS)]
    settings = {"shards": shards, "batch_size": 4, "seconds": SECONDS}
    one_thread = {"OMP_NUM_THREADS": "1"}  # as torch gives each of its loader's workers
    sides = [
        Side("ours", "jobs/loader.py", settings=settings, env=one_thread),
        Side("webdataset", "peers/webdataset_loader.py", settings=settings, env=one_thread),
    ]
    runs = alternate(sides, scale.pairs)
    lost = scale.clips - runs["ours"][-1]["clips"]
    yield compare(
        "loader, clips per CPU second, against webdataset", f"{scale.clips} clips", 1, "ours", "webdataset", runs, "cpu",
        lost=lost,
    )  # fmt: skip
