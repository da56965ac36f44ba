"""Bad inputs 22: adapters, checkpoints and backbones."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import safetensors.torch
import torch
from fit_tools import WINDOW
from markers import pickled, torch_bytes
from random_folders import tiny_backbone

from apa_lightning.backbones.architectures import TINY, save_random_backbone
from bad_inputs.cases import one_edit, refused, works
from bad_inputs.room import Room

WEIGHTS = {
    "missing_layer": ("lacks 1", lambda w: w.pop(next(iter(w)))),
    "extra_layer": ("extra", lambda w: w.update(extra=torch.ones(1))),
    "other_widths": ("shape (2, 2)", lambda w: w.update({next(iter(w)): torch.ones(2, 2)})),
    "nan": ("NaN", lambda w: next(iter(w.values())).fill_(float("nan"))),
}
NO_WEIGHTS: dict[str, Callable[[Room], bytes]] = {
    "empty": lambda r: b"",
    "zeros": lambda r: b"\0" * 100,
    "html": lambda r: b"<html></html>",
    "pickle": lambda r: pickled({"state_dict": r.payload()}),
    "torch_payload": lambda r: torch_bytes({"state_dict": {}, "loops": {}, "evil": r.payload()}, r.path / "x"),
}


def truncated(room: Room) -> bytes:
    content = safetensors.torch.save({"w": torch.ones(1000)})
    return content[: len(content) // 2]


def cut_checkpoint(room: Room) -> bytes:
    content = torch_bytes({"state_dict": {"w": torch.ones(1000)}, "loops": {}}, room.path / "x")
    return content[: len(content) // 2]


def of_other_widths(room: Room) -> list[object]:
    """The adapter of another backbone."""
    from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone

    save_random_backbone(room.path / "other", replace(TINY, unet={**TINY.unet, "block_out_channels": (16, 16, 48)}))
    path = room.path / "culprit.safetensors"
    AudioLDM2Backbone.from_pretrained(room.path / "other").new_adapter().save(path)
    return room.fit("--model.adapter", path)


def wide_encoder(room: Room) -> list[object]:
    wider = replace(TINY, audio_encoder={"embed_dim": 96, "depth": 1, "num_heads": 4})
    save_random_backbone(room.path / "wider", wider)
    return room.fit("--model.audio_encoder", room.path / "wider" / "audio_encoder")


def damaged_backbone(room: Room) -> list[object]:

    folder = shutil.copytree(tiny_backbone(WINDOW), room.path / "culprit")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return room.fit("--model.backbone", folder)


def weights_file(suffix: str, content: Callable[[Room], bytes]) -> Callable[[Room], list[object]]:
    option = "--ckpt_path" if suffix == "ckpt" else "--model.adapter"
    return lambda r: r.fit(option, r.write(f"culprit.{suffix}", content(r)))


CASES = [
    *(
        refused(22, f"{name}-fit", f"culprit.safetensors|{words}",
                lambda r, change=change: r.fit("--model.adapter", r.adapter(change)))
        for name, (words, change) in WEIGHTS.items()
    ),
    refused(22, "nan-predict", "culprit.safetensors|NaN",
            lambda r: one_edit(r, "--model.adapter", r.adapter(WEIGHTS["nan"][1]))),
    *(
        refused(22, f"{name}_{suffix}-fit", f"culprit.{suffix}", weights_file(suffix, content))
        for name, content in NO_WEIGHTS.items()
        for suffix in ("safetensors", "bin", "ckpt")
    ),
    refused(22, "truncated-fit", "culprit.safetensors", weights_file("safetensors", truncated)),
    refused(22, "truncated_checkpoint-fit", "culprit.ckpt", weights_file("ckpt", cut_checkpoint)),
    refused(22, "missing_adapter-predict", "culprit.bin|does not exist",
            lambda r: one_edit(r, "--model.adapter", r.path / "culprit.bin")),
    refused(22, "missing_checkpoint-fit", "culprit.ckpt|does not exist",
            lambda r: r.fit("--ckpt_path", r.path / "culprit.ckpt")),
    works(22, "no_last_checkpoint-fit", "there is no last.ckpt|training starts at the first step",
          lambda r: r.fit("--ckpt_path", "last")),
    refused(22, "no_last_checkpoint-validate", "there is no last.ckpt", lambda r: r.validate("--ckpt_path", "last")),
    refused(22, "other_backbone-fit", "culprit.safetensors", of_other_widths),
    refused(22, "other_encoder-fit", "audio_encoder|96 channels", wide_encoder),
    refused(22, "no_encoder-fit", "audio_encoder|README.md", lambda r: r.fit("--model.audio_encoder", "README.md")),
    refused(22, "damaged_backbone-fit", "culprit", damaged_backbone),
]  # fmt: skip
