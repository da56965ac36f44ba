"""Folders of frozen parts that name code, or hold pickles."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bad_inputs.room import Room
from fit_tools import WINDOW
from random_folders import tiny_backbone, tiny_musicgen

from apa_lightning.cli.main import main
from payloads.base import (
    Payload,
    Prepared,
    Unsafe,
    edit,
    evaluation,
    imports,
    loads,
)
from payloads.files import legacy, legacy_tar, object_array, raw, zipped
from payloads.weights import bare, given_as


def code(path: Path, canary: Path) -> Path:
    """A Python module that leaves the canary where it is imported."""
    path.write_text(f"from pathlib import Path\n\nPath({str(canary)!r}).touch()\n\n\nclass Evil:\n    pass\n")
    return path


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
        return imports(code(folder / part / "evil.py", room.path / "canary"))

    return change


def index_names(code_at: str, **entries: object):
    """model_index.json names a class of a module that lies in the folder."""

    def change(room: Room, folder: Path) -> Unsafe:
        change_json(folder / "model_index.json", **entries)
        return imports(code(folder / code_at, room.path / "canary"))

    return change


def custom_generate(room: Room, folder: Path) -> Unsafe:
    (folder / "language_model" / "custom_generate").mkdir()
    return imports(code(folder / "language_model" / "custom_generate" / "generate.py", room.path / "canary"))


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
    return imports(code(folder / "part" / "evil.py", room.path / "canary"))


def vggish(room: Room) -> Prepared:
    path = bare("pth", zipped, "weight")(room)
    return evaluation(room, "--data.embedding", "vggish", "--data.vggish", path), loads(path)


def measured_before(room: Room) -> Prepared:
    """A stranger's evaluation, whose kept figures are pickles; which are read is known by digests, so all are replaced."""
    command = evaluation(room)
    with contextlib.suppress(SystemExit):
        main([str(argument) for argument in command])
    data = object_array(room.payload(), archive=True)
    kept = list((room.path / "out" / "measures").glob("*.npz"))
    assert kept
    for path in kept:
        path.write_bytes(data)
    return command, lambda: np.load(io.BytesIO(data), allow_pickle=True)["arr_0"]


UNET = "diffusion_pytorch_model.bin"
BIN = "pytorch_model.bin"
TOKENIZER = auto_map("tokenizer", "tokenizer_config.json", tokenizer_class="Evil")

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
