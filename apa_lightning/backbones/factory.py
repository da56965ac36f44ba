"""Loading a backbone by the short string of a setting: its kind is read from the folder's ``model_index.json``."""

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from apa_lightning.backbones.base import Backbone
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import EDIT_DEFAULTS_FILE, resolve_pipeline

#: Backbones by the pipeline class that ``model_index.json`` names. One is imported when it is loaded: diffusers takes seconds.
BACKBONES = {
    "AudioLDM2Pipeline": "apa_lightning:AudioLDM2Backbone",
    "StableAudioPipeline": "apa_lightning:StableAudioBackbone",
}
#: Defaults of edits, where they are not the paper's. Of Stable Audio those of MuseControlLite (arXiv 2506.18729): text 7.0,
#: audio 1.5.
EDIT_DEFAULTS = {"StableAudioPipeline": {"guidance_scale": 7.0, "audio_guidance_scale": 1.5}}


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
    path = resolve_pipeline(source)
    kind = pipeline_class(path)
    if kind not in BACKBONES:
        raise InputError(
            f"backbone: {source} holds a {kind or 'damaged model_index.json'}; this program knows "
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
    return file if file.exists() else EDIT_DEFAULTS.get(pipeline_class(folder) or "", {})


def pipeline_class(path: Path) -> str | None:
    """The pipeline class that a folder's ``model_index.json`` names; None if there is none."""
    try:
        return json.loads((path / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
