"""Nothing lost silently: whatever is broken in a shard, every sample of its index is delivered or named in quarantine.

What a stream over http cannot promise, and is not asked here: behind a damaged header the rest of a tar is lost to it. It is
named, where an index stands beside the shard.
"""

import json
import shutil
from pathlib import Path

import pytest
from damages import DAMAGES, K, command, offset, written
from diary import lines
from shard_tools import flip

NAME = "Nothing lost silently"
FAST = ("flipped byte in a header", "flipped byte in audio", "pickle member", "missing shard")


@pytest.mark.parametrize("kind", ["validate", "fit"])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES]
)
def test_every_sample_is_delivered_or_named(name: str, kind: str, whole: Path, tmp_path: Path, promise) -> None:
    folder, damage = tmp_path / "data", DAMAGES[name]
    shutil.copytree(whole, folder)
    first, second = sorted(folder.glob("*.tar"))
    expected = written(first) | written(second) | damage.more
    damage.do(first)
    run = command(kind, folder)
    code = run.wait()
    if damage.refused:
        named = damage.refused in run.output and first.name in run.output and "Traceback" not in run.output
        ok = code == 2 and named and not lines(folder / "keys.jsonl")
        promise(NAME, ok, 1, f"kinds of damage, {kind}")
        assert ok, run.output
        return
    delivered = [key for line in lines(folder / "keys.jsonl") for key in line["keys"]]
    report = [line for path in folder.rglob("quarantine-*.jsonl") for line in lines(path)]
    quarantined = {line["key"] for line in report if not line["kept"]}
    faults = [line for line in report if not line["kept"]]
    # Of a tar without an index a stretch that cannot be read is named by its bytes: it is what the shard lacks.
    stretch = expected - set(delivered) - quarantined if any(line["key"] == "" for line in faults) else set()
    lost = quarantined & expected | stretch
    ok = code == 0 and set(delivered) | lost == expected and not set(delivered) & lost
    ok = ok and all(line["reason"] and first.name in line["shard"] for line in report)
    ok = ok and (bool(lost) if damage.lost is None else lost == damage.lost)
    if kind == "validate":
        ok = ok and len(delivered) == len(set(delivered))
    promise(NAME, ok, 1, f"kinds of damage, {kind}")
    assert ok, (code, sorted(delivered), report, run.output[-1500:])


@pytest.mark.parametrize("kind", ["validate", "fit"])
def test_too_much_stops_with_the_report(kind: str, whole: Path, tmp_path: Path, promise) -> None:
    folder = tmp_path / "data"
    shutil.copytree(whole, folder)
    first = min(folder.glob("*.tar"))
    for key in K[:4]:
        flip(first, offset(first, f"{key}.flac") + 500)
    run = command(kind, folder, share=0.2)
    code = run.wait()
    report = [line for path in folder.rglob("quarantine-*.jsonl") for line in lines(path)]
    ok = code == 2 and {line["key"] for line in report} == set(K[:4]) and "quarantine-" in run.output
    promise(NAME, ok, 1, "runs above the allowed share stop and name the report")
    assert ok, (code, json.dumps(report), run.output[-1500:])
    assert "too many broken" in run.output and "Traceback" not in run.output
