"""Checkpoints and adapters that are pickles, or hold one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from bad_inputs.room import Room
from fit_tools import WINDOW
from random_folders import tiny_backbone
from slurm import slurm

from payloads.base import Payload, Prepared, edit, loads
from payloads.files import legacy, legacy_tar, raw, zipped


def checkpoint(where: str, write: Callable[[object], Callable[[Path], object]] = zipped) -> Callable[[Room], Prepared]:
    """A Trainer's checkpoint that is whole but for a payload in one of its parts."""

    def prepare(room: Room) -> Prepared:
        whole: dict[str, object] = {
            "state_dict": {"adapter.w": torch.ones(2)}, "loops": {}, "callbacks": {}, "epoch": 0, "global_step": 1,
            "pytorch-lightning_version": "2.6.6",
        }  # fmt: skip
        path = room.path / "culprit.ckpt"
        write(whole | {where: {"x": room.payload()}})(path)
        return room.fit("--ckpt_path", path), loads(path)

    return prepare


def bare(suffix: str, write: Callable[[object], Callable[[Path], object]], *wrapped: str) -> Callable[[Room], Path]:
    """A weights file that is nothing but a payload, or holds it below ``wrapped`` keys."""

    def make(room: Room) -> Path:
        content: object = room.payload()
        for key in wrapped:
            content = {key: content}
        path = room.path / f"culprit.{suffix}"
        write(content)(path)
        return path

    return make


def given_as(option: str, make: Callable[[Room], Path], command: str = "fit") -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        path = make(room)
        careless = loads(path)
        if command == "adapter":
            return ["adapter", "--source", path, "--backbone", tiny_backbone(WINDOW)], careless
        arguments = {"fit": room.fit, "validate": room.validate, "predict": lambda *a: edit(room, *a)}[command]
        return arguments(option, path), careless

    return prepare


def left_in_the_run(name: str, command: str, *more: object) -> Callable[[Room], Prepared]:
    """A payload where an earlier run, or SLURM, leaves a checkpoint."""

    def prepare(room: Room) -> Prepared:
        path = room.path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {}, "loops": {}, "evil": room.payload()}, path)
        folder = ["--trainer.default_root_dir", room.path / "runs", *more]
        arguments = room.fit(*folder) if command == "fit" else room.validate(*folder) if command == "validate" else None
        return arguments or edit(room, *folder), loads(path)

    return prepare


def slurm_job(folder: Path) -> Mapping[str, str]:
    return slurm(folder, 7)


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
