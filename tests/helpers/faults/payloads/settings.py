"""Configurations that name classes, functions, commands and Python objects."""

from collections.abc import Callable
from typing import Any

import yaml
from bad_inputs.room import Room
from markers import leave
from omegaconf import OmegaConf

from payloads.backbones import code
from payloads.base import WORD, Payload, Prepared, builds, edit, evaluation, imports, loads_yaml, runs


def leaver(room: Room) -> dict[str, Any]:
    """A class of the test's own that leaves the canary where it is built."""
    return {"class_path": "markers.Leaver", "init_args": {"marker": f"{room.path}/canary"}}


def pipe(setting: str) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        command = f"true {WORD}; cat {room.shard()}"
        overlay = {"data": {"init_args": {setting: f"pipe:{command}"}}}
        return room.fit("--config", room.write("overlay.yaml", yaml.safe_dump(overlay))), runs(command, room)

    return prepare


def pipe_evaluated(setting: str) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        command = f"true {WORD}; cat {room.shard()}"
        return evaluation(room, f"--data.{setting}", f"pipe:{command}"), runs(command, room)

    return prepare


def run_folder(room: Room) -> Prepared:
    """A stranger's run folder: its texts are never read as settings."""
    text = f"x: !!python/object/apply:markers.leave ['{room.path}/canary']\n"
    for name in ("hparams.yaml", "config.yaml", "history.jsonl"):
        room.write(f"runs/lightning_logs/version_0/{name}", text)
    room.write("runs/lightning_logs/version_0/checkpoints/notes.txt", "none")
    return room.fit("--ckpt_path", "last"), loads_yaml(text)


def setting(place: str, command: str = "fit") -> Callable[[Room], Prepared]:
    """A class that leaves the canary where it is built, given in an overlay at ``place`` (dots between keys; ``[]`` makes a list)."""

    def prepare(room: Room) -> Prepared:
        value: Any = leaver(room)
        for key in reversed(place.split(".")):
            value = [value] if key == "[]" else {key: value}
        overlay = room.write("overlay.yaml", yaml.safe_dump(value))
        arguments = {"fit": room.fit, "predict": lambda *a: edit(room, *a), "evaluate": lambda *a: evaluation(room, *a)}
        return arguments[command]("--config", overlay), builds(leaver(room))

    return prepare


def function(place: str) -> Callable[[Room], Prepared]:
    """A function by its name, where a class or a callable is expected."""

    def prepare(room: Room) -> Prepared:
        value: Any = {"class_path": "markers.leave", "init_args": {"marker": f"{room.path}/canary"}}
        for key in reversed(place.split(".")):
            value = [value] if key == "[]" else {key: value}
        overlay = room.write("overlay.yaml", yaml.safe_dump(value))
        return room.fit("--config", overlay), lambda: leave(f"{room.path}/canary")

    return prepare


def hook_of_a_callback(room: Room) -> Prepared:
    """Where a callback takes a function, a call of one."""
    call = {"class_path": "markers.leave", "init_args": {"marker": f"{room.path}/canary"}}
    callback = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": call}}
    overlay = room.write("overlay.yaml", yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    return room.fit("--config", overlay), lambda: leave(f"{room.path}/canary")


TAGS = {
    "apply": "!!python/object/apply:markers.leave ['{canary}']",
    "new": "!!python/object/new:markers.Leaver ['{canary}']",
    "module": "!!python/module:evil",
    "name": "!!python/name:evil.Evil",
}


def tagged(tag: str, way: str) -> Callable[[Room], Prepared]:
    """A YAML tag of Python's: in a configuration, in a task's file, on the command line."""

    def prepare(room: Room) -> Prepared:
        text = TAGS[tag].format(canary=room.path / "canary")
        careless = loads_yaml(text)
        if tag in ("module", "name"):
            careless = imports(code(room.path / "evil.py", room.path / "canary"))
        if way == "config":
            return room.fit("--config", room.write("overlay.yaml", f"trainer: {{max_steps: {text}}}")), careless
        if way == "task":
            task = room.write("task.yaml", f"data: {{init_args: {{ap_scale: {text}}}}}")
            return evaluation(room, "--config", task), careless
        if way == "tasks":
            return evaluation(room, "--data.tasks", room.write("tasks.yaml", f"- {text}")), careless
        return evaluation(room, f"--data.{way}", f"{{ap_scale: [{text}]}}" if way == "grid" else text), careless

    return prepare


def interpolated(text: str) -> Callable[[Room], Prepared]:
    """An interpolation that somebody could have given a meaning: a resolver of that name."""

    def prepare(room: Room) -> Prepared:
        value = text.replace("CANARY", f"{room.path}/canary")
        overlay = room.write("overlay.yaml", yaml.safe_dump({"trainer": {"default_root_dir": value}}))
        return room.fit("--config", overlay), lambda: resolves(value)

    return prepare


def resolves(value: str) -> None:
    name = value.removeprefix("${").partition(":")[0]
    OmegaConf.register_resolver(name, leave, replace=True)
    try:
        _ = OmegaConf.create({"value": value}).value
    finally:
        OmegaConf.clear_resolver(name)


SETTINGS = [
    Payload("pipe: as train_shards", pipe("train_shards"), "allow_pipe"),
    Payload("pipe: as validation_shards", pipe("validation_shards"), "allow_pipe"),
    Payload("pipe: as an evaluation's sources", pipe_evaluated("sources"), "is not local"),
    Payload("pipe: as an evaluation's reference", pipe_evaluated("reference"), "is not local"),
    *(
        Payload(f"a class as {place}", setting(place), place.removesuffix(".[]").rsplit(".", 1)[-1])
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
    Payload("a class as pooling_rates", setting("model.init_args.pooling_rates"), "markers.Leaver"),
    Payload("a class as ap_scale", setting("data.init_args.ap_scale.[]", "predict"), "ap_scale"),
    Payload("a class in ap_scale", setting("data.init_args.ap_scale.up", "predict"), "ap_scale"),
    Payload("a class in a grid", setting("data.init_args.grid.ap_scale.[]", "evaluate"), "ap_scale"),
    *(
        Payload(f"a function as {place}", function(place), place.removesuffix(".[]").rsplit(".", 1)[-1])
        for place in ("model", "trainer.callbacks.[]", "model.init_args.optimizer", "model.init_args.lr_scheduler")
    ),
    Payload("a function as a callback's hook", hook_of_a_callback, "on_fit_start"),
    *(Payload(f"!!python, {tag}, in --config", tagged(tag, "config"), "overlay.yaml") for tag in TAGS),
    Payload("!!python, apply, in a task's file", tagged("apply", "task"), "task.yaml"),
    Payload("!!python, apply, in --data.tasks", tagged("apply", "tasks"), "tasks"),
    Payload("!!python, apply, in --data.grid", tagged("apply", "grid"), "grid"),
    Payload("!!python, apply, in --data.seed", tagged("apply", "seed"), "seed"),
    *(
        Payload(f"interpolation, {text.partition(':')[0]}", interpolated(text), words)
        for text, words in (
            ("${eval:CANARY}", "interpolation"),
            ("${shell:CANARY}", "interpolation"),
            ("${oc.create:CANARY}", "save_dir"),
        )
    ),
    Payload("a stranger's run folder", run_folder),
]
