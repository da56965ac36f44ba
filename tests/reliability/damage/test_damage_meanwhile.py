"""Nothing lost silently: shards that change or go while a run reads them.

An epoch before, an epoch after: then each sample of the shard is named, and others take its place so that batches stay full.
"""

import shutil
from pathlib import Path

import pytest
from bad_servers import stream
from damages import K, command, offset
from diary import lines
from shard_tools import served

NAME = "Nothing lost silently"
#: what happens to the first shard: (shell, samples that are lost by it).
CHANGES = {
    "disappears": ("rm {shard}", K),
    "becomes another": ("cp {other} {shard}", K),
    "is emptied": ("truncate -s 0 {shard}", K),
    "is cut": ("truncate -s {cut} {shard}", K[3:]),
    "is zeroed in one place": ("dd if=/dev/zero of={shard} bs=1 seek={cut} count=4096 conv=notrunc", K[3:4]),
}
FAST = ("disappears",)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CHANGES]
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_shard_that_changes(name: str, workers: int, whole: Path, tmp_path: Path, promise) -> None:
    check(name, workers, whole, tmp_path, promise, remote=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_remote_shard_that_changes(name: str, whole: Path, tmp_path: Path, promise) -> None:
    check(name, 1, whole, tmp_path, promise, remote=True)


def check(name: str, workers: int, whole: Path, folder: Path, promise, remote: bool) -> None:
    data = folder / "data"
    shutil.copytree(whole, data)
    shard, other = sorted(data.glob("*.tar"))
    shell, lost = CHANGES[name]
    change = shell.format(shard=shard, other=other, cut=offset(shard, f"{K[3]}.flac"))
    if remote:
        with served(data) as url:
            run = stream("fit", folder, url, *meanwhile(folder, change, workers), share=1)
            code = run.wait()
    else:
        run = command("fit", folder, local(data), *meanwhile(folder, change, workers), share=1)
        code = run.wait()
    batches = [line["keys"] for line in lines(folder / "keys.jsonl")]
    half = len(batches) // 2
    before, after = ({key for keys in part for key in keys} for part in (batches[:half], batches[half:]))
    report = [line for path in folder.rglob("quarantine-*.jsonl") for line in lines(path)]
    named = {line["key"] for line in report if line["reason"]} & set(K)  # a stream may meet the other's in its place
    everything = {f"train{i:03d}" for i in range(12)}
    ok = code == 0 and before == everything and named == set(lost) and after == everything - named
    ok = ok and all(len(keys) == 2 for keys in batches) and all(line["shard"].endswith(shard.name) for line in report)
    promise(NAME, ok, 1, f"changes to a shard that is being read{', over http' * remote}")
    assert ok, (code, sorted(before), sorted(after), report, run.output[-1500:])


def local(data: Path) -> str:
    return f"--data.train_shards={data}/train-*.tar"


def meanwhile(folder: Path, change: str, workers: int) -> list[str]:
    return [
        f"--data.num_workers={workers}", f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=2",
        "--trainer.callbacks+=diary.Meanwhile", f"--trainer.callbacks.init_args.command={change}",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_all_shards_go(workers: int, whole: Path, tmp_path: Path, promise) -> None:
    """There is nothing to go on with: the run stops and says so."""
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    run = command("fit", tmp_path, local(data), *meanwhile(tmp_path, f"mv {data} {data}-old", workers), share=1)
    code = run.wait()
    report = [line for path in tmp_path.rglob("quarantine-*.jsonl") for line in lines(path)]
    ok = code == 2 and "The training data cannot be used" in run.output and "quarantine-train.jsonl" in run.output
    ok = ok and {line["reason"] for line in report} == {"shard cannot be read"} and "Traceback" not in run.output
    promise(NAME, ok, 1, "changes to a shard that is being read")
    assert ok, (code, report, run.output[-1500:])
