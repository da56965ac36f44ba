"""Whole files: a full disk, a folder that cannot be written and a kill in the middle of a write leave no half file.

Every program runs once, and then again with other settings that replace or add to what is there; that second run is
disturbed. After it each file is as it was or whole and new, the message says what to do, and when that is done the run
completes. TensorBoard's own files are left out: it appends to them, and reads what is whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from diary import in_a_write
from disks import kept, small_disk, temporary, unreadable
from fit_tools import WINDOW
from observed_edits import THREADS, Edits, adapter, undisturbed
from observed_fit import shards as training_shards
from observed_shards import Arguments, render, shards
from processes import ROOT, Command
from random_folders import tiny_backbone, tiny_flags

NAME = "Whole files"
WHAT = "writes interrupted, all files readable"


@dataclass(frozen=True)
class Program:
    """A command that writes into a folder.

    Attributes:
        first: its arguments by the folder; nothing is there before where it is None.
        second: of the run that is disturbed, and afterwards repeated.
    """

    second: Callable[[Path], Arguments]
    first: Callable[[Path], Arguments] | None = None


def fit(folder: Path) -> Arguments:
    data = [f"--data.{split}_shards={training_shards()}/{split}-*.tar" for split in ("train", "validation")]
    return [
        "fit", "--config", ROOT / "configs/base.yaml", "--config", ROOT / "tests/small.yaml", *tiny_flags(WINDOW), *data,
        "--trainer.val_check_interval=2", "--trainer.max_steps=2", f"--trainer.default_root_dir={folder}",
    ]  # fmt: skip


def convert(folder: Path, suffix: str) -> Arguments:
    return [
        "adapter", f"--source={adapter()}", f"--to={folder}/adapter{suffix}", f"--backbone={tiny_backbone(WINDOW)}",
        "--overwrite=true",
    ]  # fmt: skip


def listening_test(folder: Path) -> Arguments:
    whole, _ = undisturbed(Edits("evaluate"))
    return ["listening-test", "build", f"--evaluation={whole}", f"--out={folder}/test", "--systems=[adapter,no_op]"]


def edits(command: str, *more: str) -> Callable[[Path], Arguments]:
    return lambda folder: [*Edits(command).arguments(folder), *more]


def more(of: Callable[[Path], Arguments], *arguments: str) -> Callable[[Path], Arguments]:
    return lambda folder: [*of(folder), *arguments]


PROGRAMS = {
    "predict": Program(edits("predict", "--data.seed=1"), edits("predict")),
    "evaluate": Program(edits("evaluate", "--data.seed=1"), edits("evaluate")),
    "sweep": Program(edits("sweep", "--data.seed=1"), edits("evaluate")),
    "fit": Program(more(fit, "--trainer.max_steps=4", "--ckpt_path=last"), fit),
    "fit without TensorBoard": Program(
        more(fit, "--trainer.max_steps=4", "--ckpt_path=last", "--trainer.logger=false"),
        more(fit, "--trainer.logger=false"),
    ),
    "shards": Program(more(shards, "--sample_rate=8000", "--overwrite=true"), shards),
    "shards, continued": Program(shards),
    "render": Program(render),
    "adapter": Program(partial(convert, suffix=".safetensors"), partial(convert, suffix=".safetensors")),
    "published adapter": Program(partial(convert, suffix=".bin"), partial(convert, suffix=".bin")),
    "listening test": Program(listening_test),
}

#: Kilobytes that are free for the second run.
FULL = {
    "predict": (0, 4, 24, 44),
    "evaluate": (0, 4, 24, 44, 52, 56, 60, 64),
    "sweep": (0, 100, 130, 160, 200),
    "fit": (4,),
    "fit without TensorBoard": (0, 4, 30, 60, 120, 200, 280, 360, 440, 520),
    "shards": (0, 4, 16),
    "shards, continued": (4, 24, 40, 70, 100, 108),
    "render": (4, 40, 60, 120, 160),
    "adapter": (0, 16, 40),
    "published adapter": (0, 16, 40),
    "listening test": (4, 16, 60, 200, 340),
}
#: What is being written where the second run is killed: how its temporary name ends, of how many, and after how many bytes.
KILLED = {
    "predict": ((".tmp.wav", 2, 5_000), (".tmp.json", 2, 5), (".tmp.csv", 1, 500)),
    "evaluate": (
        (".tmp.wav", 2, 5_000), (".tmp.npz", 2, 300), (".tmp.csv", 1, 500), (".tmp.csv", 2, 500), (".tmp.json", 4, 20),
        (".tmp.md", 1, 50), (".tmp.png", 1, 5_000), (".tmp.html", 1, 9_000),
    ),
    "sweep": ((".tmp.yaml", 1, 50),),
    "fit": (
        (".tmp.ckpt", 1, 5_000), (".tmp.ckpt", 2, 5_000), (".tmp.safetensors", 1, 5_000), (".tmp.wav", 1, 5_000),
        (".tmp.png", 2, 5_000), (".tmp.jsonl", 1, 100), (".tmp.yaml", 1, 500),
    ),
    "shards": ((".tmp.tar", 1, 20_000), (".tmp.tar", 2, 0), (".tmp.json", 1, 30), (".tmp.json", 3, 30), (".tmp.csv", 1, 5)),
    "shards, continued": ((".tmp.tar", 2, 20_000), (".tmp.json", 3, 30)),
    "render": ((".tmp.json", 1, 5), (".tmp.tar", 2, 20_000), (".tmp.json", 2, 50)),
    "adapter": ((".tmp.safetensors", 1, 5_000),),
    "published adapter": ((".tmp.bin", 1, 5_000),),
    "listening test": ((".wav", 2, 5_000), ("index.html", 1, 5_000), (".tmp.json", 1, 50)),
}  # fmt: skip
FAST = {
    ("full", "predict", 24),
    ("full", "published adapter", 16),
    ("killed", "adapter", (".tmp.safetensors", 1, 5_000)),
    ("read only", "shards"),
}


def cases(kind: str, table: dict[str, tuple]) -> list:
    return [
        pytest.param(
            name, value, id=f"{name}-{value if isinstance(value, int) else ' '.join(map(str, value))}",
            marks=() if (kind, name, value) in FAST else pytest.mark.slow,
        )
        for name, values in table.items()
        for value in values
    ]  # fmt: skip


def run(arguments: Arguments, log: Path, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """A command's exit code and all it said."""
    command = Command(arguments, log, environment=THREADS, before=before)
    return command.wait(), command.output


def begin(program: Program, folder: Path) -> dict[str, bytes]:
    """What the first run leaves in ``folder``."""
    if program.first is not None:
        code, said = run(program.first(folder), folder.parent / "first.txt")
        assert code == 0, said
    return kept(folder)


def broken(program: Program, folder: Path, before: dict[str, bytes]) -> list[str]:
    """What is wrong in a folder whose second run was disturbed: files that are gone or unreadable, and half ones."""
    gone = [name for name in before if not may_go(name) and not (folder / name).exists()]
    return [*unreadable(folder), *(f"{name}: gone" for name in gone)]


def may_go(name: str) -> bool:
    """An index goes before its shard is replaced; checkpoints but the best are pruned; a claim's note when it is done."""
    return name.endswith(".index.json") or "step=" in name or name.startswith(".claims")


def complaint(code: int, said: str, folder: Path) -> str:
    """What is wrong with how a command ended that could not write, "" if nothing is."""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code != 2 or "Traceback" in said or len(errors) != 1:
        return f"ended with {code}:\n{said[-3000:]}"
    way_out = any(words in errors[0] for words in ("Free space", "hoose another"))
    return "" if str(folder) in errors[0] and way_out else errors[0]


def completed(program: Program, folder: Path) -> str:
    """Repeat the second run: what is wrong with it, "" if nothing is."""
    code, said = run(program.second(folder), folder.parent / "again.txt")
    if code:
        return f"the repetition ended with {code}: {said[-3000:]}"
    return "".join(f"left or unreadable: {name}\n" for name in temporary(folder) + unreadable(folder))


@pytest.mark.parametrize(("name", "kilobytes"), cases("full", FULL))
def test_full_disk(name: str, kilobytes: int, tmp_path: Path, promise) -> None:
    program = PROGRAMS[name]
    with small_disk(tmp_path / "out") as disk:
        before = begin(program, disk.path)
        disk.leave(kilobytes)
        ended = run(program.second(disk.path), tmp_path / "second.txt")
        problems = [*broken(program, disk.path, before), *temporary(disk.path), complaint(*ended, disk.path)]
        disk.leave(100_000)
        problems = [problem for problem in [*problems, completed(program, disk.path)] if problem]
    promise(NAME, not problems, 1, WHAT)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "name", [n if ("read only", n) in FAST else pytest.param(n, marks=pytest.mark.slow) for n in PROGRAMS]
)
def test_folder_that_cannot_be_written(name: str, tmp_path: Path, promise) -> None:
    """Root may write anywhere but on a disk that is mounted for reading."""
    program = PROGRAMS[name]
    with small_disk(tmp_path / "out") as disk:
        before = begin(program, disk.path)
        disk.read_only()
        ended = run(program.second(disk.path), tmp_path / "second.txt")
        problems = [complaint(*ended, disk.path), "" if kept(disk.path) == before else "files changed"]
        disk.leave(100_000)
        problems = [problem for problem in [*problems, completed(program, disk.path)] if problem]
    promise(NAME, not problems, 1, WHAT)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("name", "write"), cases("killed", KILLED))
def test_killed_in_the_middle_of_a_write(name: str, write: tuple[str, int, int], tmp_path: Path, promise) -> None:
    program = PROGRAMS[name]
    folder = tmp_path / "out"
    folder.mkdir()
    before = begin(program, folder)
    code, said = run(program.second(folder), tmp_path / "second.txt", partial(in_a_write, *write))
    assert code < 0, f"it was not killed but ended with {code}: {said}"
    problems = [problem for problem in [*broken(program, folder, before), completed(program, folder)] if problem]
    promise(NAME, not problems, 1, WHAT)
    assert not problems, "\n".join(problems)
