"""Memory of a data set of many clips: as benchmarks/two_million_clips.py measures it, with 20,000."""

import pickle
import runpy
from pathlib import Path

from shard_tools import decoder

from datamodules.loading.order import EvaluationPlan, SampleOrder
from datamodules.shards.index import read_index
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.table import SampleTable
from datamodules.shards.writer import ShardWriter

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "two_million_clips.py"
CLIPS, LIMIT = 20_000, 100


def test_a_clip_takes_less_than_100_bytes(tmp_path: Path) -> None:
    runpy.run_path(str(BENCHMARK))["write_shards"](tmp_path, CLIPS, 4)
    shards = sorted(tmp_path.glob("*.tar"))
    table, order = SampleTable(shards), SampleOrder(CLIPS, CLIPS, seed=0)
    number = order(1, 0)[1]
    (permutation,) = order._drawn.values()
    in_process = len(pickle.dumps(table)) + 2 * permutation.nbytes  # at the end of an epoch there are two
    in_worker = len(pickle.dumps(IndexedShards(table, decoder(), substitute=True)))
    assert len(table) == CLIPS and max(in_process, in_worker) / CLIPS < LIMIT
    plan = EvaluationPlan(CLIPS, None, 8, rank=1, world_size=2)
    assert next(iter(plan)) == [1, 3, 5, 7, 9, 11, 13, 15] and len(pickle.dumps(plan)) < 1000
    group, members = table.group(number), read_index(shards[number // 5000]).members
    expected = members[2 * (number % 5000)]
    assert (group.key, group.audio.offset, group.audio.size) == (expected.key, expected.offset, expected.size)
    assert expected.sha256.startswith(group.audio.sha256) and len(group.audio.sha256) == 32


def test_the_digest_of_a_data_set_stays(tmp_path: Path) -> None:
    """Checkpoints of earlier versions hold it, with and without audio prompts in a part of the shards."""
    with ShardWriter(tmp_path / "pair-{:06d}.tar", max_samples=3) as writer:
        for i in range(6):
            prompt = b"prompt" if i == 4 else None
            writer.write(f"p{i}" * (i + 1), b"audio %d" % i, "flac", {"labels": ["Piano"]}, prompt)
    with ShardWriter(tmp_path / "plain-{:06d}.tar", max_samples=3) as writer:
        for i in range(4):
            writer.write(f"k{i}" * (i + 1), b"audio %d" % i, "wav", {"labels": ["Piano"]})
    assert SampleTable(sorted(tmp_path.glob("plain*.tar"))).digest() == "37d192c4e43029ae"
    assert SampleTable(sorted(tmp_path.glob("p*.tar"))).digest() == "94e3ff3ec5929383"
