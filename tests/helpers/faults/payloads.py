"""Hostile files, settings and names: each leaves a canary if anything executes it, and each says how that would come."""

import importlib
import io
import json
import os
import pickle
import runpy
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from bad_inputs.room import ROOT, Room
from fit_tools import WINDOW
from markers import Payload as Pickled
from random_folders import tiny_backbone, tiny_flags, tiny_musicgen
from shard_tools import sample
from slurm import slurm

Unsafe = Callable[[], object]
"""Does what a careless program would do; the canary must be there then, or the payload is a dud."""
Prepared = tuple[list[object], Unsafe]


@dataclass(frozen=True)
class Payload:
    """A payload and the command that meets it.

    Attributes:
        name: what it is and where it lies.
        prepare: writes the files into a room; gives the command line and the careless act.
        words: what the one message names; "" where the command carries on.
        environment: of the command.
    """

    name: str
    prepare: Callable[[Room], Prepared]
    words: str = ""
    environment: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {"ROOM": str(folder)})

    @property
    def code(self) -> int:
        return 2 if self.words else 0

    def __str__(self) -> str:
        return self.name


# --- what a careless program does ---------------------------------------------------------------------------------------


def unpickles(data: bytes) -> Unsafe:
    return lambda: pickle.loads(data)


def loads(path: Path) -> Unsafe:
    def load() -> object:
        with open(path, "rb") as file:  # by a name that ends in .safetensors torch reads it as that
            return torch.load(file, weights_only=False)

    return load


def imports(path: Path) -> Unsafe:
    return lambda: runpy.run_path(str(path))


def runs(command: str) -> Unsafe:
    return lambda: os.system(command)


def loads_yaml(text: str) -> Unsafe:
    return lambda: yaml.unsafe_load(text)


def builds(spec: Mapping[str, Any]) -> Unsafe:
    """Import ``class_path`` and call it with ``init_args``, whatever it is."""

    def build() -> object:
        module, name = spec["class_path"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(**spec["init_args"]).wait()

    return build


# --- payloads -------------------------------------------------------------------------------------------------------------


def touch(room: Room) -> str:
    return f"touch {room.path}/canary"


def a_pickle(room: Room) -> bytes:
    return pickle.dumps(room.payload())


def popen(room: Room) -> dict[str, Any]:
    """A class of the standard library that runs a command where it is built."""
    return {"class_path": "subprocess.Popen", "init_args": {"args": touch(room), "shell": True}}


def code(room: Room, path: Path) -> Path:
    """A Python module that runs a command where it is imported."""
    path.write_text(f"import os\nos.system({touch(room)!r})\n\n\nclass Evil:\n    pass\n")
    return path


def zipped(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def legacy(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=False)


def legacy_tar(payload: object) -> Callable[[Path], object]:
    """torch's oldest format, whose first member is a pickle."""

    def write(path: Path) -> None:
        data = pickle.dumps(payload)
        with tarfile.open(path, "w") as tar:
            for name in ("storages", "tensors", "pickle"):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    return write


# --- shards ---------------------------------------------------------------------------------------------------------------


def object_array(payload: object, archive: bool = False) -> bytes:
    file = io.BytesIO()
    array = np.array([payload], dtype=object)
    np.savez(file, array) if archive else np.save(file, array, allow_pickle=True)
    return file.getvalue()


MEMBERS: dict[str, Callable[[object], bytes]] = {
    **dict.fromkeys(
        ("pyd", "pkl", "pickle", "p", "pt", "pth", "ckpt", "bin", "joblib", "ten", "tb", "mp", "msg", "cbor"),
        pickle.dumps,
    ),
    "cls.pyd": pickle.dumps,
    "flac.pkl": pickle.dumps,
    "npy": object_array,
    "npz": lambda payload: object_array(payload, archive=True),
}
"""Members beside a good sample's two, by extension."""
INSTEAD = {"json": "bad JSON", "flac": "unusable audio"}
"""Members of which a good sample needs one, and what is said of a pickle in its place."""


def hostile_members(room: Room) -> tuple[list, dict[str, tuple[Path, Unsafe]]]:
    """Samples with a payload each, and by key its own canary and the careless act."""
    members, acts = [], {}
    for number, (extension, write) in enumerate(MEMBERS.items()):
        key = f"payload_{extension.replace('.', '_')}"
        canary = room.path / f"canary_{extension}"
        data = write(Pickled(canary))
        members += [*sample(key, number), (f"{key}.{extension}", data)]
        careless = (lambda d=data: np.load(io.BytesIO(d), allow_pickle=True)) if extension == "npy" else unpickles(data)
        if extension == "npz":
            careless = lambda d=data: np.load(io.BytesIO(d), allow_pickle=True)["arr_0"]
        acts[key] = canary, careless
    for extension in INSTEAD:
        key, canary = f"instead_of_{extension}", room.path / f"canary_instead_{extension}"
        data = pickle.dumps(Pickled(canary))
        good = sample(key, 40)
        members += [(name, data if name.endswith(extension) else content) for name, content in good]
        acts[key] = canary, unpickles(data)
    room.keys |= set(acts)
    return members, acts


def pipe(setting: str) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        command = f"{touch(room)}; cat {room.shard()}"
        overlay = {"data": {"init_args": {setting: f"pipe:{command}"}}}
        return room.fit("--config", room.write("overlay.yaml", yaml.safe_dump(overlay))), runs(command)

    return prepare


def pipe_evaluated(setting: str) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        command = f"{touch(room)}; cat {room.shard()}"
        return evaluation(room, f"--data.{setting}", f"pipe:{command}"), runs(command)

    return prepare


def shell_url(room: Room) -> Prepared:
    """A URL that ends what a careless shell command puts into quotes. Nobody answers there."""
    url = f"http://127.0.0.1:9/'; {touch(room)}; '.tar"
    return room.fit("--data.train_shards", f'["{url}"]'), runs(f"echo '{url}'")


def shell_shard(room: Room) -> Prepared:
    """A shard whose name is a command for a shell that does not quote it."""
    shard = room.shard(name="0; cd $ROOM; touch canary; .tar")
    return room.fit("--data.train_shards", f"['{shard}']"), runs(f"export ROOM={room.path}; cat {shard}")


# --- checkpoints and adapters -----------------------------------------------------------------------------------------------


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


def raw(content: object) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pickle.dumps(content))


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


def run_folder(room: Room) -> Prepared:
    """A stranger's run folder: its texts are never read as settings."""
    text = f"x: !!python/object/apply:os.system ['{touch(room)}']\n"
    for name in ("hparams.yaml", "config.yaml", "history.jsonl"):
        room.write(f"runs/lightning_logs/version_0/{name}", text)
    room.write("runs/lightning_logs/version_0/checkpoints/notes.txt", "none")
    return room.fit("--ckpt_path", "last"), loads_yaml(text)


# --- folders of frozen parts ------------------------------------------------------------------------------------------------


def edit(room: Room, *more: object) -> list[object]:
    room.recording()
    return room.folder(*more)


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def backbone(change: Callable[[Room, Path], Unsafe]) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        folder = room.path / "culprit"
        shutil.copytree(tiny_backbone(WINDOW), folder)
        careless = change(room, folder)
        return edit(room, "--model.backbone", folder), careless

    return prepare


def weights(part: str, name: str, write: Callable[[object], Callable[[Path], object]] = zipped, index: bool = False):
    """A pickle in place of a part's safetensors; with ``index``, named by the index of a sharded one."""

    def change(room: Room, folder: Path) -> Unsafe:
        for path in (folder / part).glob("*.safetensors"):
            path.unlink()
        path = folder / part / (f"evil-{name}" if index else name)
        write({"weight": room.payload()})(path)
        if index:
            (folder / part / f"{name}.index.json").write_text(
                json.dumps({"metadata": {"total_size": 1}, "weight_map": {"weight": path.name}})
            )
        return loads(path)

    return change


AUTO = {name: "evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoFeatureExtractor", "AutoProcessor")}
AUTO["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]  # type: ignore[assignment]


def auto_map(part: str, config: str, **changes: object):
    """Remote code beside a part's config, as ``trust_remote_code`` would import it."""

    def change(room: Room, folder: Path) -> Unsafe:
        change_json(folder / part / config, auto_map=AUTO, **changes)
        return imports(code(room, folder / part / "evil.py"))

    return change


def index_names(code_at: str, **entries: object):
    """model_index.json names a class of a module that lies in the folder."""

    def change(room: Room, folder: Path) -> Unsafe:
        change_json(folder / "model_index.json", **entries)
        return imports(code(room, folder / code_at))

    return change


def custom_generate(room: Room, folder: Path) -> Unsafe:
    (folder / "language_model" / "custom_generate").mkdir()
    return imports(code(room, folder / "language_model" / "custom_generate" / "generate.py"))


def both(*changes: Callable[[Room, Path], Unsafe]):
    """All of these; the last one's careless act."""
    return lambda room, folder: [change(room, folder) for change in changes][-1]


def encoder_folder(change: Callable[[Room, Path], Unsafe]) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        folder = room.path / "culprit"
        shutil.copytree(tiny_backbone(WINDOW) / "audio_encoder", folder / "part")
        careless = change(room, folder)
        return edit(room, "--model.audio_encoder", folder / "part"), careless

    return prepare


def timm_url(room: Room, folder: Path) -> Unsafe:
    """The folder's config says that its weights lie elsewhere."""
    path = folder / "evil.pth"
    torch.save({"weight": room.payload()}, path)
    for weights_file in (folder / "part").glob("*.safetensors"):
        weights_file.unlink()
    change_json(
        folder / "part" / "config.json",
        pretrained_cfg={"url": f"file://{path}", "file": str(path), "custom_load": True},
    )
    return loads(path)


def evaluation(room: Room, *more: object) -> list[object]:
    room.recording("songs/piano_0.wav", 1.2)
    return [
        "evaluate", "--config", ROOT / "configs/base.yaml", "--config", ROOT / "configs/tasks/timbre.yaml",
        *tiny_flags(WINDOW), f"--model.adapter={room.adapter()}", "--trainer.accelerator=cpu",
        f"--data.sources={room.path}/songs", f"--data.output={room.path}/out", "--data.systems=[no_op]",
        "--data.num_inference_steps=1", *more,
    ]  # fmt: skip


def clap(change: Callable[[Room, Path], Unsafe]) -> Callable[[Room], Prepared]:
    """A folder with model, tokenizer and feature extractor side by side, as CLAPs of the hub."""

    def prepare(room: Room) -> Prepared:
        folder = room.path / "culprit" / "part"
        folder.mkdir(parents=True)
        for part in ("text_encoder", "tokenizer", "feature_extractor"):
            shutil.copytree(tiny_backbone(WINDOW) / part, folder, dirs_exist_ok=True)
        careless = change(room, folder.parent)
        return evaluation(room, "--data.clap", folder), careless

    return prepare


def musicgen(change: Callable[[Room, Path], Unsafe]) -> Callable[[Room], Prepared]:
    def prepare(room: Room) -> Prepared:
        folder = room.path / "culprit"
        shutil.copytree(tiny_musicgen(), folder / "part")
        careless = change(room, folder)
        return evaluation(room, "--data.musicgen", folder / "part"), careless

    return prepare


def processor_code(room: Room, folder: Path) -> Unsafe:
    changes = {"processor_class": "Evil", "auto_map": AUTO, "audio_tokenizer_class": "Evil"}
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (folder / "part" / name).exists():
            change_json(folder / "part" / name, **changes)
    return imports(code(room, folder / "part" / "evil.py"))


def vggish(room: Room) -> Prepared:
    path = bare("pth", zipped, "weight")(room)
    return evaluation(room, "--data.embedding", "vggish", "--data.vggish", path), loads(path)


def measured_before(room: Room) -> Prepared:
    """A stranger's evaluation, whose kept figures are pickles; which are read is known by digests, so all are replaced."""
    import contextlib
    import sys

    from apa_lightning.cli.main import main

    command = evaluation(room)
    with contextlib.suppress(SystemExit):
        main([str(argument) for argument in command])
    data = object_array(room.payload(), archive=True)
    kept = list((room.path / "out" / "measures").glob("*.npz"))
    assert kept, sys.argv
    for path in kept:
        path.write_bytes(data)
    return command, lambda: np.load(io.BytesIO(data), allow_pickle=True)["arr_0"]


# --- configuration ----------------------------------------------------------------------------------------------------------


def setting(place: str, command: str = "fit") -> Callable[[Room], Prepared]:
    """A class that runs a command, given in an overlay at ``place`` (dots between keys; ``[]`` makes a list)."""

    def prepare(room: Room) -> Prepared:
        value: Any = popen(room)
        for key in reversed(place.split(".")):
            value = [value] if key == "[]" else {key: value}
        overlay = room.write("overlay.yaml", yaml.safe_dump(value))
        arguments = {"fit": room.fit, "predict": lambda *a: edit(room, *a), "evaluate": lambda *a: evaluation(room, *a)}
        return arguments[command]("--config", overlay), builds(popen(room))

    return prepare


def function(place: str) -> Callable[[Room], Prepared]:
    """os.system by its name, where a class or a callable is expected."""

    def prepare(room: Room) -> Prepared:
        value: Any = {"class_path": "os.system", "init_args": {"command": touch(room)}}
        for key in reversed(place.split(".")):
            value = [value] if key == "[]" else {key: value}
        overlay = room.write("overlay.yaml", yaml.safe_dump(value))
        return room.fit("--config", overlay), runs(touch(room))

    return prepare


def hook_of_a_callback(room: Room) -> Prepared:
    """Where a callback takes a function, a call of one."""
    call = {"class_path": "os.system", "init_args": {"command": touch(room)}}
    callback = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"on_fit_start": call}}
    overlay = room.write("overlay.yaml", yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    return room.fit("--config", overlay), runs(touch(room))


TAGS = {
    "apply": "!!python/object/apply:os.system ['{touch}']",
    "new": "!!python/object/new:os._wrap_close [!!python/object/apply:os.popen ['{touch}'], null]",
    "module": "!!python/module:evil",
    "name": "!!python/name:evil.Evil",
}


def tagged(tag: str, way: str) -> Callable[[Room], Prepared]:
    """A YAML tag of Python's: in a configuration, in a task's file, on the command line."""

    def prepare(room: Room) -> Prepared:
        text = TAGS[tag].format(touch=touch(room))
        careless = loads_yaml(text)
        if tag in ("module", "name"):
            careless = imports(code(room, room.path / "evil.py"))
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
    def prepare(room: Room) -> Prepared:
        command = touch(room)
        value = text.replace("COMMAND", command)
        overlay = room.write("overlay.yaml", yaml.safe_dump({"trainer": {"default_root_dir": value}}))
        return room.fit("--config", overlay), runs(command)

    return prepare


# --- manifests and names ------------------------------------------------------------------------------------------------------

TEXTS = {
    "shell": "$(touch CANARY)",
    "shell_separator": "; touch CANARY ;",
    "backticks": "`touch CANARY`",
    "python": "__import__('os').system('touch CANARY')",
    "template": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "interpolation": "${eval:__import__('os').system('touch CANARY')}",
}


def careless_text(text: str, name: str) -> Unsafe:
    inner = text.strip("{} $").removeprefix("eval:").removeprefix("cycler.__init__.__globals__.")
    if name in ("python", "template", "interpolation"):
        return lambda: eval(inner, {"os": os})
    return runs(f"echo {text}")


def said(name: str, column: str) -> Callable[[Room], Prepared]:
    """A manifest's field that is a program in one language or another."""

    def prepare(room: Room) -> Prepared:
        text = TEXTS[name].replace("CANARY", f"{room.path}/canary")
        line = {"audio": "a.wav", "prompt": "x", "id": "a"} | {column: text}
        return room.lines(line), careless_text(text, name)

    return prepare


def in_csv(room: Room) -> Prepared:
    """All texts as prompts of a CSV, and a spreadsheet's formula."""
    texts = [text.replace("CANARY", f"{room.path}/canary") for text in TEXTS.values()]
    lines = ["audio,prompt,id", *(f'a.wav,"{text}",{number}' for number, text in enumerate(texts))]
    lines.append(f"a.wav,\"=cmd|'/c touch {room.path}/canary'!A1\",formula")
    return room.predict("--data.manifest", room.manifest(*lines, name="edits.csv")), runs(f"echo {texts[0]}")


def shell_name(name: str) -> Callable[[Room], Prepared]:
    """A recording whose name is a command. No slash can stand in it: the environment says where the canary belongs."""

    def prepare(room: Room) -> Prepared:
        room.recording(f"in/{name}.wav")
        return room.folder(), runs(f"export ROOM={room.path}; cat {name}.wav")

    return prepare


def slurm_job(folder: Path) -> Mapping[str, str]:
    return slurm(folder, 7)
