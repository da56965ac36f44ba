"""Loading a backbone by the short string of a setting: its kind is read from the folder's ``model_index.json`` or ``config.json``."""

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from apa_lightning.backbones.base import Backbone
from apa_lightning.backbones.edit_batch import Sampling
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import EDIT_DEFAULTS_FILE, download_model, resolve_source

MUSICGEN = "MusicgenForConditionalGeneration"
#: Backbones by the pipeline class that ``model_index.json`` names, or the model that ``config.json`` names. One is imported when it
#: is loaded: diffusers and transformers take seconds.
BACKBONES = {
    "AudioLDM2Pipeline": "apa_lightning:AudioLDM2Backbone",
    "StableAudioPipeline": "apa_lightning:StableAudioBackbone",
    MUSICGEN: "apa_lightning:MusicgenBackbone",
}
#: Defaults of edits, where they are not the paper's. Of Stable Audio those of MuseControlLite (arXiv 2506.18729): text 7.0,
#: audio 1.5; of MusicGen its own.
EDIT_DEFAULTS = {
    "StableAudioPipeline": {"guidance_scale": 7.0, "audio_guidance_scale": 1.5},
    MUSICGEN: {"guidance_scale": 3.0},
}


def load_backbone(
    source: str | os.PathLike | Backbone = "embedded", dtype: torch.dtype = torch.float32, **options: Any
) -> Backbone:
    """Load a backbone.

    Args:
        source: ``embedded`` (the pocket that comes with the package), a folder in the hub's layout, or a hub id such as
            ``cvssp/audioldm2-large``; a backbone object loads its own weights and keeps its own options.
        dtype: Of the frozen weights.
        options: Of the backbone's kind, for example ``vocoder``; None means the kind's own.

    Raises:
        FileNotFoundError: If there is no such source.
        InputError: If the hub cannot be read, the folder cannot be used, or its kind does not have an option.
    """
    if isinstance(source, Backbone):
        source.load_weights()
        return source
    path = resolve_source(source, "backbone", _download)
    kind = kind_of(path)
    if kind is None:
        raise FileNotFoundError(
            f"backbone: {path} holds no model_index.json or config.json; give the folder of {', '.join(BACKBONES)}."
        )
    if kind not in BACKBONES:
        raise InputError(
            f"backbone: {source} holds a {kind or 'damaged description of itself'}; this program knows "
            f"{', '.join(BACKBONES)}. Give a folder of such a model, or a backbone by class_path."
        )
    load = resolve_name(BACKBONES[kind]).from_pretrained
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - inspect.signature(load).parameters.keys():
        raise InputError(f"{name}: {given[name]!r} belongs to another kind of backbone; leave it out for {kind}.")
    return load(path, dtype, name=str(source), **given)


def stored_defaults(folder: Path) -> Path | Mapping[str, Any]:
    """The defaults of edits of the backbone in a folder: a file in it, or those of its kind."""
    file = folder / EDIT_DEFAULTS_FILE
    return file if file.exists() else EDIT_DEFAULTS.get(kind_of(folder) or "", {})


def sampling_of(folder: Path) -> Sampling:
    """How the backbone in a folder generates, see :attr:`Backbone.sampling`."""
    return "tokens" if kind_of(folder) == MUSICGEN else "diffusion"


def kind_of(path: Path) -> str | None:
    """The class that a folder names; empty where what names it is damaged, None where nothing does."""
    files = [file for name in ("model_index.json", "config.json") if (file := path / name).is_file()]
    if not files:
        return None
    try:
        content = json.loads(files[0].read_text())
        return str(content["_class_name"] if files[0].stem == "model_index" else content["architectures"][0])
    except (ValueError, LookupError, TypeError):
        return ""


def _download(name: str) -> str:
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(name, "config.json")  # which the repository of a pipeline does not have
    except EntryNotFoundError:
        return DiffusionPipeline.download(name)
    return download_model(name)
