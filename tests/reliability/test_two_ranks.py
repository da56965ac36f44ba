"""No hang: every layout of shards, clips and edits over two processes ends, and each sample comes as often as it is promised.

Training takes ceil(samples_per_epoch / (batch_size * ranks)) steps on every rank, whatever the shards; the last step is filled
up with the samples that begin the next epoch. Validation and edits come once over all ranks.
"""

import math
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
from diary import lines
from fit_tools import WINDOW
from processes import ROOT, Command
from random_folders import tiny_flags
from shard_tools import RATE, flip, served, tone, write_shards

from datamodules.shards.index import read_index

NAME = "No hang"
RANKS = 2
SHORT = 90
"""Seconds; these runs take about ten on two busy cores."""


@dataclass(frozen=True)
class Layout:
    """Shards and settings of one command on two ranks.

    Attributes:
        command: fit (two epochs) or validate.
        shards: clips in each.
        broken: numbers of clips whose audio is damaged.
        streamed: through http.
        settings: more of the command line.
        batch_size: of each rank.
        per_epoch: `samples_per_epoch`; 0: as many as there are clips.
        refused: the run ends with exit code 2 and these words.
    """

    command: str
    shards: tuple[int, ...]
    broken: tuple[int, ...] = ()
    streamed: bool = False
    settings: tuple[str, ...] = ()
    batch_size: int = 2
    per_epoch: int = 0
    refused: str = ""

    @property
    def clips(self) -> int:
        return sum(self.shards)

    def start(self, folder: Path, url: str, *more: object) -> Command:
        """Write the shards and run the command."""
        first = 0
        for number, clips in enumerate(self.shards):
            (shard,) = write_shards(folder, clips, clips, f"s{number}", first=first)
            for member in read_index(shard).members:
                if member.name.endswith("flac") and int(member.key[-3:]) in self.broken:
                    flip(shard, member.offset + member.size // 2)
            first += clips
        split, other = ("train", "validation") if self.command == "fit" else ("validation", "train")
        names = ",".join(f"{url if self.streamed else folder}/s{n}-000000.tar" for n in range(len(self.shards)))
        validated = [f"--data.{other}_shards={'null' if self.command == 'fit' else 'embedded'}"]
        per_epoch = [f"--data.samples_per_epoch={self.per_epoch or self.clips}"] if self.command == "fit" else []
        return Command(
            [
                self.command, "--config", ROOT / "configs/base.yaml", "--config", ROOT / "tests/small.yaml", *tiny_flags(WINDOW),
                f"--data.{split}_shards=[{names}]", *validated, *per_epoch, f"--data.batch_size={self.batch_size}",
                "--data.validation_samples=null", "--data.max_broken_share=0.9", f"--trainer.default_root_dir={folder}",
                "--trainer.callbacks=null", "--trainer.callbacks+=diary.Keys", f"--trainer.callbacks.init_args.path={folder}/keys.jsonl",
                "--trainer.enable_checkpointing=false", "--trainer.max_steps=-1", "--trainer.max_epochs=2", *self.settings, *more,
            ],
            folder / "log.txt", RANKS,
        )  # fmt: skip


WORKERS = ("--data.num_workers=2",)
ALLOWED = ("--data.max_broken_share=1",)
DATA = {
    "uneven shards": Layout("fit", (5, 1, 4)),
    "uneven shards, workers": Layout("fit", (5, 1, 4), settings=WORKERS),
    "one shard": Layout("fit", (8,)),
    "one shard, two workers": Layout("fit", (9,), settings=WORKERS),
    "clips that do not divide": Layout("fit", (7,)),
    "one clip": Layout("fit", (1,)),
    "an epoch longer than the data": Layout("fit", (3, 2), per_epoch=11),
    "gradients that accumulate": Layout("fit", (5, 2), settings=("--trainer.accumulate_grad_batches=2",)),
    "all clips but one broken": Layout("fit", (5, 3), broken=(0, 1, 2, 3, 5, 6, 7), settings=ALLOWED),
    "streams": Layout("fit", (5, 1, 4), streamed=True),
    "streams, workers": Layout("fit", (6, 2, 3), streamed=True, settings=WORKERS),
    "one stream": Layout("fit", (7,), streamed=True),
    "one stream of fewer clips than readers": Layout(
        "fit", (3,), streamed=True, settings=WORKERS, per_epoch=12, refused="without a usable sample"
    ),
    "uneven shards to validate": Layout("validate", (5, 1, 4)),
    "one shard to validate": Layout("validate", (8,)),
    "one shard to validate, two workers": Layout("validate", (7,), settings=WORKERS),
    "one clip for each rank": Layout("validate", (2,), batch_size=4),
    "one rank's clips all broken": Layout("validate", (6,), broken=(1, 3, 5), settings=ALLOWED),
    "fewer clips than ranks": Layout("validate", (1,), refused="fewer clips than the 2 processes"),
    "streams to validate": Layout("validate", (5, 1, 3), streamed=True),
    "one stream to validate": Layout("validate", (5,), streamed=True, settings=WORKERS),
    "streams, one rank's all broken": Layout("validate", (3, 3), broken=(3, 4, 5), streamed=True, settings=ALLOWED),
    "streams of fewer clips than ranks": Layout("validate", (1,), streamed=True),
}
FAST = ("clips that do not divide",)


def some(cases: dict) -> list:
    """All are slow but a few."""
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in cases]


def ended(run: Command) -> list[int]:
    """Every process's exit code; one that hangs is killed by the harness and makes this fail."""
    run.wait(SHORT)
    return [process.exitcode for process in run.processes]


@pytest.mark.parametrize("name", some(DATA))
def test_samples_over_two_ranks(name: str, tmp_path: Path, promise) -> None:
    layout = DATA[name]
    missing = "it hangs"
    with served(tmp_path) as url:
        run = layout.start(tmp_path, url)
        try:
            missing = _missing(layout, tmp_path, ended(run), run.output)
        finally:
            promise(NAME, not missing, 1, "layouts finish")
    assert not missing, (missing, run.output[-3000:])


def _missing(layout: Layout, folder: Path, codes: list[int], output: str) -> str:
    """What is not as promised; "" if nothing is. A rank that cannot go on says why, and the other that it lost its partner."""
    if layout.refused:
        said = layout.refused in output and "Traceback" not in output
        return "" if said and codes == [2, 2] else f"it ended with {codes}"
    if any(codes):
        return f"it ended with {codes}"
    seen = lines(folder / "keys.jsonl")
    ranks = [[line["keys"] for line in seen if line["rank"] == rank] for rank in range(RANKS)]
    counts = Counter(key for keys in ranks for batch in keys for key in batch)
    written = {f"s{n}{i:03d}" for n, i in _numbers(layout.shards)}
    broken = {key for key in written if int(key[-3:]) in layout.broken}
    report = {line["key"] for path in folder.rglob("quarantine-*.jsonl") for line in lines(path)}
    if report != broken:
        return f"the report names {report} and not {broken}"
    if layout.command != "fit":
        return "" if counts == Counter(written - broken) else f"delivered: {counts}"
    per_epoch = layout.per_epoch or layout.clips
    steps = 2 * math.ceil(per_epoch / (layout.batch_size * RANKS))
    if [len(batches) for batches in ranks] != [steps] * RANKS:
        return f"{[len(batches) for batches in ranks]} steps and not {steps}"
    if any(len(batch) != layout.batch_size for batches in ranks for batch in batches):
        return "a batch is not full"
    if layout.broken or layout.streamed:
        return "" if counts.keys() <= written - broken else f"delivered: {counts}"
    whole = []  # epochs are stretches of one line of permutations; their last step reaches into the next stretch
    for epoch in range(2):
        own = [batches[epoch * steps // 2 : (epoch + 1) * steps // 2] for batches in ranks]
        whole += [key for step in zip(*own, strict=True) for place in zip(*step, strict=True) for key in place][
            :per_epoch
        ]
    rounds = [whole[start : start + layout.clips] for start in range(0, len(whole) - layout.clips + 1, layout.clips)]
    return next((f"not each clip once: {keys}" for keys in rounds if set(keys) != written), "")


def _numbers(shards: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(n, i) for n, clips in enumerate(shards) for i in range(sum(shards[:n]), sum(shards[:n]) + clips)]


def predict(folder: Path, edits: int, *more: object) -> Command:
    """Edit so many short recordings."""
    (folder / "in").mkdir(exist_ok=True)
    for number in range(edits):
        soundfile.write(folder / f"in/e{number}.wav", tone(1.0, frequency=220.0 + 20 * number), RATE)
    return Command(
        [
            "predict", "--config", ROOT / "configs/predict.yaml", *tiny_flags(WINDOW), "--model.adapter=null",
            "--trainer.accelerator=cpu", f"--data.folder={folder}/in", "--data.prompt=a violin", f"--data.output={folder}/edits",
            "--data.num_inference_steps=2", "--trainer.callbacks+=diary.Keys",
            f"--trainer.callbacks.init_args.path={folder}/keys.jsonl", *more,
        ],
        folder / "log.txt", RANKS,
    )  # fmt: skip


def made(folder: Path) -> list[str]:
    """The ids of all whole edits, once for each line that says so."""
    done = [line for line in lines(folder / "edits/results.jsonl") if line["status"] == "done"]
    assert {line["output"] for line in done} == {path.name for path in (folder / "edits").glob("*.wav")}
    return sorted(line["id"] for line in done)


EDITS = {
    "one edit": (1, 1),
    "an odd number of edits": (3, 1),
    "one batch": (2, 4),
    "batches that do not divide": (5, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_edits_over_two_ranks(name: str, tmp_path: Path, promise) -> None:
    """And again, when nothing is left to do."""
    edits, batch_size = EDITS[name]
    ok = [False, False]
    try:
        for again in (False, True):
            run = predict(tmp_path, edits, f"--data.batch_size={batch_size}")
            assert ended(run) == [0, 0], run.output[-3000:]
            ok[again] = len(made(tmp_path)) == edits == len(set(made(tmp_path)))
            computed = Counter(key for line in lines(tmp_path / "keys.jsonl") for key in line["keys"])
            ok[again] = ok[again] and set(computed.values()) == {1}
    finally:
        promise(NAME, sum(ok), 2, "layouts finish")
    assert all(ok)


@pytest.mark.parametrize(
    "command", ["fit", *(pytest.param(c, marks=pytest.mark.slow) for c in ("validate", "predict"))]
)
def test_a_rank_that_is_killed_does_not_leave_the_other_waiting(command: str, tmp_path: Path, promise) -> None:
    """gloo sees the lost connection where the ranks next meet: in the next step of fit, at the end of validate. In predict
    the other makes what the lost one had begun, and all is well.

    (A rank that is alive and silent, a stopped process or a cut cable, is noticed after torch's timeout of 30 minutes.)
    """
    if command == "predict":
        run = predict(tmp_path, 12)
    else:
        endless = ("--trainer.max_epochs=10000",)
        layout = Layout(command, (60, 20), batch_size=1, settings=endless if command == "fit" else ())
        run = layout.start(tmp_path, "")
    assert run.wait_until(lambda: any(line["rank"] == 1 for line in lines(tmp_path / "keys.jsonl"))), run.output
    run.processes[1].kill()
    start, codes = time.monotonic(), []
    try:
        codes = ended(run)
    finally:
        seconds = f"{command} {time.monotonic() - start:.0f} s"
        promise(NAME, bool(codes), 1, "runs end by themselves when a rank is killed", seconds)
    assert codes[1] == -signal.SIGKILL and codes[0] != -signal.SIGKILL, run.output[-3000:]
    if command == "predict":
        assert codes[0] == 0 and len(made(tmp_path)) == 12
    else:
        said = "another process of this run has ended" in run.output and "Traceback" not in run.output
        assert said and codes[0] == 2, run.output[-3000:]
