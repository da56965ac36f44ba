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
from payloads import (
    INSTEAD,
    MEMBERS,
    TAGS,
    TEXTS,
    Payload,
    Unsafe,
    auto_map,
    backbone,
    bare,
    both,
    checkpoint,
    clap,
    custom_generate,
    encoder_folder,
    function,
    given_as,
    hook_of_a_callback,
    hostile_members,
    in_csv,
    index_names,
    interpolated,
    left_in_the_run,
    legacy,
    legacy_tar,
    measured_before,
    musicgen,
    pipe,
    pipe_evaluated,
    processor_code,
    raw,
    run_folder,
    said,
    setting,
    shell_name,
    shell_shard,
    shell_url,
    slurm_job,
    tagged,
    timm_url,
    vggish,
    weights,
    zipped,
)
from processes import Command

NAME = "Nothing executes"
WHAT = "payloads did not run"

UNET = "diffusion_pytorch_model.bin"
BIN = "pytorch_model.bin"
TOKENIZER = auto_map("tokenizer", "tokenizer_config.json", tokenizer_class="Evil")

CHECKPOINTS = [
    *(
        Payload(f"checkpoint, {name}", given_as("--ckpt_path", bare("ckpt", write)), "culprit.ckpt")
        for name, write in {"pickle": raw, "zip": zipped, "legacy": legacy, "legacy tar": legacy_tar}.items()
    ),
    *(
        Payload(f"checkpoint, in its {part}", checkpoint(part), "culprit.ckpt")
        for part in ("callbacks", "hyper_parameters", "loops", "optimizer_states", "state_dict", "AudioSetDataModule")
    ),
    Payload("checkpoint, legacy, in its callbacks", checkpoint("callbacks", legacy), "culprit.ckpt"),
    Payload("checkpoint of validate", given_as("--ckpt_path", bare("ckpt", zipped), "validate"), "culprit.ckpt"),
    Payload("checkpoint of predict", given_as("--ckpt_path", bare("ckpt", zipped), "predict"), "culprit.ckpt"),
    Payload(
        "last.ckpt of fit",
        left_in_the_run("lightning_logs/version_0/checkpoints/last.ckpt", "fit", "--ckpt_path", "last"),
        "last.ckpt",
    ),
    Payload(
        "last.ckpt of validate",
        left_in_the_run("lightning_logs/version_0/checkpoints/last.ckpt", "validate", "--ckpt_path", "last"),
        "last.ckpt",
    ),
    *(
        Payload(f"SLURM's checkpoint, {kind}", left_in_the_run("hpc_ckpt_1.ckpt", kind), "hpc_ckpt_", slurm_job)
        for kind in ("fit", "validate", "predict")
    ),
    Payload(
        "--ckpt_path hpc", left_in_the_run("hpc_ckpt_1.ckpt", "fit", "--ckpt_path", "hpc"), "hpc_ckpt_1.ckpt", slurm_job
    ),
]
ADAPTERS = [
    Payload("adapter, pickle named .safetensors", given_as("--model.adapter", bare("safetensors", raw)), "culprit"),
    Payload("adapter, zip named .safetensors", given_as("--model.adapter", bare("safetensors", zipped)), "culprit"),
    Payload("adapter, pickle", given_as("--model.adapter", bare("bin", raw), "predict"), "culprit.bin"),
    Payload("adapter, published", given_as("--model.adapter", bare("bin", zipped, "state_dict")), "culprit.bin"),
    Payload("adapter, legacy", given_as("--model.adapter", bare("pt", legacy, "model")), "culprit.pt"),
    Payload("adapter, legacy tar", given_as("--model.adapter", bare("bin", legacy_tar)), "culprit.bin"),
    Payload("adapter --source", given_as("--source", bare("bin", zipped), "adapter"), "culprit.bin"),
]
BACKBONES = [
    Payload("U-Net, pickle", backbone(weights("unet", UNET, raw)), "backbone"),
    Payload("U-Net, zip", backbone(weights("unet", UNET)), "backbone"),
    Payload("U-Net, shard of a pickle", backbone(weights("unet", UNET, index=True)), "backbone"),
    Payload("VAE, legacy", backbone(weights("vae", UNET, legacy)), "backbone"),
    Payload("projection model, zip", backbone(weights("projection_model", UNET)), "backbone"),
    Payload("CLAP of a backbone, zip", backbone(weights("text_encoder", BIN)), "backbone"),
    Payload("T5, legacy", backbone(weights("text_encoder_2", BIN, legacy)), "backbone"),
    Payload("GPT-2, pickle", backbone(weights("language_model", BIN, raw)), "backbone"),
    Payload("GPT-2, shard of a pickle", backbone(weights("language_model", BIN, index=True)), "backbone"),
    Payload("vocoder, zip", backbone(weights("vocoder", BIN)), "backbone"),
    Payload("GPT-2's auto_map", backbone(auto_map("language_model", "config.json"))),
    Payload("GPT-2's custom_generate", backbone(custom_generate)),
    Payload("CLAP's auto_map", backbone(auto_map("text_encoder", "config.json"))),
    Payload("vocoder's auto_map", backbone(auto_map("vocoder", "config.json"))),
    Payload("U-Net's auto_map", backbone(auto_map("unet", "config.json"))),
    Payload("tokenizer's auto_map", backbone(TOKENIZER)),
    Payload("T5 tokenizer's auto_map", backbone(auto_map("tokenizer_2", "tokenizer_config.json"))),
    Payload(
        "feature extractor's auto_map",
        backbone(auto_map("feature_extractor", "preprocessor_config.json", feature_extractor_type="Evil")),
    ),
    Payload("scheduler's auto_map", backbone(auto_map("scheduler", "scheduler_config.json"))),
    Payload(
        "model_index.json, module in the part", backbone(index_names("unet/evil.py", unet=["evil", "Evil"])), "backbone"
    ),
    Payload("model_index.json, module beside it", backbone(index_names("evil.py", unet=["evil", "Evil"])), "backbone"),
    Payload(
        "model_index.json, custom pipeline",
        backbone(index_names("pipeline.py", _class_name=["pipeline", "Evil"])),
        "backbone",
    ),
    Payload("model_index.json, unknown pipeline", backbone(index_names("pipeline.py", _class_name="Evil"))),
    Payload(
        "model_index.json, AutoTokenizer",
        backbone(both(index_names("evil.py", tokenizer=["transformers", "AutoTokenizer"]), TOKENIZER)),
        "backbone",
    ),
    Payload(
        "model_index.json, AutoModel",
        backbone(
            both(
                index_names("evil.py", unet=["diffusers", "AutoModel"]),
                auto_map("unet", "config.json", _class_name="Evil"),
            )
        ),
        "backbone",
    ),
]
ENCODERS = [
    Payload("AudioMAE, pickle", given_as("--model.audio_encoder", bare("pth", raw)), "culprit.pth"),
    Payload("AudioMAE, zip", given_as("--model.audio_encoder", bare("pth", zipped, "model")), "culprit.pth"),
    Payload("AudioMAE, legacy tar", given_as("--model.audio_encoder", bare("bin", legacy_tar)), "culprit.bin"),
    Payload("AudioMAE folder, zip", encoder_folder(weights("part", BIN)), "audio_encoder"),
    Payload("AudioMAE folder, pickle", encoder_folder(weights("part", BIN, raw)), "audio_encoder"),
    Payload("AudioMAE folder, weights of elsewhere", encoder_folder(timm_url), "audio_encoder"),
]
JUDGES = [
    Payload("CLAP, zip", clap(weights("part", BIN)), "clap"),
    Payload("CLAP, pickle", clap(weights("part", BIN, raw)), "clap"),
    Payload("auto_map of a CLAP of its own", clap(auto_map("part", "config.json"))),
    Payload(
        "CLAP's tokenizer",
        clap(
            both(
                auto_map("part", "config.json", model_type="evil"),
                auto_map("part", "tokenizer_config.json", tokenizer_class="Evil"),
            )
        ),
        "clap",
    ),
    Payload("VGGish, zip", vggish, "vggish"),
    Payload("MusicGen, zip", musicgen(weights("part", BIN)), "musicgen"),
    Payload("MusicGen, shard of a pickle", musicgen(weights("part", BIN, index=True)), "musicgen"),
    Payload("MusicGen's auto_map", musicgen(auto_map("part", "config.json"))),
    Payload("MusicGen's processor", musicgen(processor_code)),
    Payload("kept figures of an evaluation", measured_before),
]
SETTINGS = [
    Payload("pipe: as train_shards", pipe("train_shards"), "allow_pipe"),
    Payload("pipe: as validation_shards", pipe("validation_shards"), "allow_pipe"),
    Payload("pipe: as an evaluation's sources", pipe_evaluated("sources"), "is not local"),
    Payload("pipe: as an evaluation's reference", pipe_evaluated("reference"), "is not local"),
    *(
        Payload(f"subprocess.Popen as {place}", setting(place), place.removesuffix(".[]").rsplit(".", 1)[-1])
        for place in (
            "model",
            "data",
            "trainer.callbacks.[]",
            "trainer.logger",
            "trainer.profiler",
            "trainer.plugins.[]",
            "trainer.strategy",
            "model.init_args.optimizer",
            "model.init_args.lr_scheduler",
            "data.init_args.train_shards",
            "model.init_args.optimizer.init_args.lr",
        )
    ),
    Payload("subprocess.Popen as pooling_rates", setting("model.init_args.pooling_rates"), "subprocess.Popen"),
    Payload("subprocess.Popen as ap_scale", setting("data.init_args.ap_scale.[]", "predict"), "ap_scale"),
    Payload("subprocess.Popen in ap_scale", setting("data.init_args.ap_scale.up", "predict"), "ap_scale"),
    Payload("subprocess.Popen in a grid", setting("data.init_args.grid.ap_scale.[]", "evaluate"), "ap_scale"),
    *(
        Payload(f"os.system as {place}", function(place), place.removesuffix(".[]").rsplit(".", 1)[-1])
        for place in ("model", "trainer.callbacks.[]", "model.init_args.optimizer", "model.init_args.lr_scheduler")
    ),
    Payload("os.system as a callback's hook", hook_of_a_callback, "on_fit_start"),
    *(Payload(f"!!python, {tag}, in --config", tagged(tag, "config"), "overlay.yaml") for tag in TAGS),
    Payload("!!python, apply, in a task's file", tagged("apply", "task"), "task.yaml"),
    Payload("!!python, apply, in --data.tasks", tagged("apply", "tasks"), "tasks"),
    Payload("!!python, apply, in --data.grid", tagged("apply", "grid"), "grid"),
    Payload("!!python, apply, in --data.seed", tagged("apply", "seed"), "seed"),
    *(
        Payload(f"interpolation, {text.partition(':')[0]}", interpolated(text), words)
        for text, words in (
            ("${eval:COMMAND}", "interpolation"),
            ("${shell:COMMAND}", "interpolation"),
            ("${oc.create:COMMAND}", "save_dir"),
        )
    ),
    Payload("a stranger's run folder", run_folder),
]
NAMES = [
    *(Payload(f"{name} as a prompt", said(name, "prompt")) for name in TEXTS),
    *(Payload(f"{name} as an output's name", said(name, "id")) for name in ("shell_separator", "backticks")),
    *(Payload(f"{name} as a scheduler", said(name, "scheduler"), "scheduler") for name in ("python", "shell")),
    Payload("prompts of a CSV, a formula", in_csv),
    *(
        Payload(f"a recording named {name}", shell_name(name))
        for name in ("$(cd $ROOM; touch canary)", "; cd $ROOM; touch canary; #")
    ),
    Payload("a shard named as a command", shell_shard),
    Payload("a URL named as a command", shell_url, "127.0.0.1:9"),
]
PAYLOADS = [*CHECKPOINTS, *ADAPTERS, *BACKBONES, *ENCODERS, *JUDGES, *SETTINGS, *NAMES]
FAST = {
    "checkpoint, zip", "checkpoint, in its callbacks", "last.ckpt of fit", "adapter, pickle named .safetensors",
    "adapter, published", "U-Net, zip", "GPT-2, pickle", "model_index.json, module in the part", "AudioMAE, pickle",
    "CLAP's tokenizer", "pipe: as train_shards", "subprocess.Popen as ap_scale", "os.system as model.init_args.optimizer",
    "!!python, apply, in --config", "shell as a prompt",
}  # fmt: skip


def careless(act: Unsafe) -> None:
    """What a program without a guard would do; what comes of it afterwards is no matter."""
    with contextlib.suppress(Exception):
        act()
    time.sleep(0.05)


def answer_yes() -> None:
    """Whoever is asked whether a stranger's code shall run says yes."""
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
    run = Command(arguments, room.path / "log.txt", 1, payload.environment(room.path), answer_yes)
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
