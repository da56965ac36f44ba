"""Nothing executes: hostile files, settings and names met by the real command line, none of which leaves its canary.

What is left out on purpose: ``class_path`` of a callback, model or data module imports the module that it names and builds the
class, if it is one of the kind that is asked for. That is LightningCLI's plug-in mechanism: a module that you have put on
PYTHONPATH, or into the folder you start in, is your own code. So is a `pipe:` command with ``allow_pipe``.
"""

import contextlib
import io
import sys
import time
from pathlib import Path

import pytest
from bad_inputs.ends import quarantined
from bad_inputs.room import Room
from payloads.backbones import BACKBONES, ENCODERS, JUDGES
from payloads.base import Payload, Unsafe, watcher
from payloads.names import NAMES, knows_leave
from payloads.settings import SETTINGS
from payloads.shards import INSTEAD, MEMBERS, hostile_members
from payloads.weights import ADAPTERS, CHECKPOINTS
from processes import Command

NAME = "Nothing executes"
WHAT = "payloads did not run"
PAYLOADS = [*CHECKPOINTS, *ADAPTERS, *BACKBONES, *ENCODERS, *JUDGES, *SETTINGS, *NAMES]
FAST = {
    "checkpoint, zip", "checkpoint, in its callbacks", "last.ckpt of fit", "adapter, pickle named .safetensors",
    "adapter, published", "U-Net, zip", "GPT-2, pickle", "model_index.json, module in the part", "AudioMAE, pickle",
    "CLAP's tokenizer", "pipe: as train_shards", "a class as ap_scale", "a function as model.init_args.optimizer",
    "!!python, apply, in --config", "shell as a prompt",
}  # fmt: skip


def careless(act: Unsafe) -> None:
    """What a program without a guard would do; what comes of it afterwards is no matter."""
    with contextlib.suppress(Exception):
        act()
    time.sleep(0.05)


def prepared(canary: Path) -> None:
    """In the command's process: texts and commands that are executed leave the canary, and who is asked says yes."""
    sys.addaudithook(watcher(canary))
    knows_leave()
    sys.stdin = io.StringIO("y\n" * 20)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with contextlib.ExitStack() as stack:
        yield Room(tmp_path, monkeypatch, stack)


def test_the_table_is_whole() -> None:
    assert len(PAYLOADS) + len(MEMBERS) + len(INSTEAD) >= 100
    assert len({str(payload) for payload in PAYLOADS}) == len(PAYLOADS)
    assert {str(payload) for payload in PAYLOADS} >= FAST


@pytest.mark.parametrize(
    "payload",
    [p if str(p) in FAST else pytest.param(p, marks=pytest.mark.slow) for p in PAYLOADS],
    ids=str,
)
def test_a_payload_does_not_run(payload: Payload, room: Room, promise) -> None:
    arguments, act = payload.prepare(room)
    canary = room.path / "canary"
    assert not canary.exists()
    run = Command(arguments, room.path / "log.txt", 1, payload.environment(room.path), lambda: prepared(canary))
    code = run.wait()
    time.sleep(0.1)  # what was started may outlive the command
    ran = canary.exists()
    clean = "Traceback" not in run.output and run.output.count("error: ") == bool(payload.words)
    ok = not ran and code == payload.code and clean and payload.words.lower() in run.output.lower()
    promise(NAME, ok, 1, WHAT)
    canary.unlink(missing_ok=True)
    careless(act)
    assert canary.exists(), "a dud"
    assert not ran, run.output[-3000:]
    assert ok, f"{code}\n{run.output[-3000:]}"


@pytest.mark.parametrize("reader", ["indexed", pytest.param("streamed", marks=pytest.mark.slow)])
def test_members_of_a_shard_do_not_run(reader: str, room: Room, promise) -> None:
    """All in one shard, each with a canary of its own."""
    members, acts = hostile_members(room)
    shard = room.shard(*members)
    more = ["--data.max_broken_share", 0.9, "--data.batch_size", 64]
    if reader == "streamed":
        more += [
            "--data.allow_pipe",
            "true",
            "--data.samples_per_epoch",
            64,
            "--data.train_shards",
            f"pipe:cat {shard}",
        ]
    run = Command(room.fit(*more, shard=shard) if reader == "indexed" else room.fit(*more), room.path / "log.txt")
    code = run.wait()
    ran = {key for key, (canary, _) in acts.items() if canary.exists()}
    promise(NAME, len(acts) - len(ran), len(acts), WHAT)
    for key, (canary, act) in acts.items():
        careless(act)
        assert canary.exists(), f"a dud: {key}"
    assert not ran
    assert code == 0 and "Traceback" not in run.output, run.output[-3000:]
    reasons = {line["key"]: line["reason"] for line in quarantined(room)}
    assert {reasons[f"instead_of_{extension}"] for extension in INSTEAD} == set(INSTEAD.values())
    assert reasons["payload_pyd"] == reasons["payload_npy"] == "member that could run code"
