"""Nothing lost silently, through http: what a server sends is delivered, or named by key where an index stands beside the shard.

What a stream cannot promise: behind a damaged header the rest of a tar is lost to it, where the indexed reader loses nothing; a
shard that cannot be used is not known before the run begins, so it is named when it is met and the run goes on with the
others (until `max_broken_share`); and without an index nobody knows what a lost stretch held: it is named as one.
"""

import shutil
from functools import partial
from pathlib import Path

import pytest
from bad_servers import Bad, stream
from damages import DAMAGES, Damage, K, cut, offset, written
from diary import lines
from shard_tools import served

from datamodules.shards.index import index_path

NAME = "Nothing lost silently"


SERVERS = ("refuses", "sends a page", "hangs up", "goes silent", "is busy twice")
FAST = ("flipped byte in a header", "server hangs up")
CASES = [*DAMAGES, *(f"server {fault}" for fault in SERVERS)]


@pytest.mark.parametrize("kind", ["validate", "fit"])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_sample_is_delivered_or_named(name: str, kind: str, whole: Path, tmp_path: Path, promise) -> None:
    folder = tmp_path / "data"
    shutil.copytree(whole, folder)
    first, second = sorted(folder.glob("*.tar"))
    damage = DAMAGES.get(name, Damage(lambda shard: None))
    expected = {first.name: written(first) | damage.more, second.name: written(second)}
    damage.do(first)
    handler = partial(Bad, fault=name.removeprefix("server "))
    with served(folder, handler) as url:
        run = stream(kind, folder, url)
        code = run.wait()
    delivered = [key for line in lines(folder / "keys.jsonl") for key in line["keys"]]
    report = [line for path in folder.rglob("quarantine-*.jsonl") for line in lines(path) if not line["kept"]]
    nothing_left = kind == "fit" and name == "shards exchanged"  # no sample of both is what was written
    missing = "" if code == (2 if nothing_left else 0) else f"it ended with {code}"
    for shard, keys in expected.items():
        faults = [line for line in report if line["shard"].endswith(shard)]
        named = {line["key"] for line in faults}
        if not all(line["reason"] for line in faults):
            missing = "a fault without a reason"
        if "" in named:  # a stretch: without an index it stands for all that did not come
            missing = missing or ("a stretch in spite of an index" if index_is_whole(folder / shard, name) else "")
            named |= keys - set(delivered)
        if set(delivered) & keys | named & keys != keys:
            missing = f"neither delivered nor named: {keys - set(delivered) - named}"
        if overlap := set(delivered) & keys & named:
            missing = f"delivered and named: {overlap}"
    if kind == "validate" and len(delivered) != len(set(delivered)):
        missing = "delivered twice"
    promise(NAME, not missing, 1, f"kinds of damage over http, {kind}")
    assert not missing, (missing, sorted(delivered), report, run.output[-1500:])


def index_is_whole(shard: Path, name: str) -> bool:
    return index_path(shard).exists() and not name.startswith("index")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["validate", "fit"])
def test_too_much_stops_with_the_report(kind: str, whole: Path, tmp_path: Path, promise) -> None:
    folder = tmp_path / "data"
    shutil.copytree(whole, folder)
    shard = folder / "train-000000.tar"
    cut(shard, offset(shard, f"{K[1]}.flac"))
    with served(folder) as url:
        run = stream(kind, folder, url, share=0.2)
        code = run.wait()
    report = {line["key"] for path in folder.rglob("quarantine-*.jsonl") for line in lines(path)}
    ok = code == 2 and report == set(K[1:]) and "quarantine-" in run.output and "too many broken" in run.output
    promise(NAME, ok, 1, "runs above the allowed share stop and name the report")
    assert ok and "Traceback" not in run.output, (code, report, run.output[-1500:])
