"""Loading a backbone by the short string of a setting: its kind is read from the folder's ``model_index.json``."""

import json
import os
from pkgutil import resolve_name
from typing import Any

import torch

from apa_lightning.backbones.base import Backbone
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import resolve_source

#: Backbones by the pipeline class that ``model_index.json`` names. One is imported when it is loaded: diffusers takes seconds.
BACKBONES = {"AudioLDM2Pipeline": "apa_lightning:AudioLDM2Backbone"}


def load_backbone(
    source: str | os.PathLike | Backbone = "embedded", dtype: torch.dtype = torch.float32, **options: Any
) -> Backbone:
    """Load a backbone.

    Args:
        source: ``embedded`` (the pocket that comes with the package), a folder in the hub's layout, or a hub id such as
            ``cvssp/audioldm2-large``; a backbone object loads its own weights and keeps its own options.
        dtype: Of the frozen weights.
        options: Of the backbone's kind, for example ``vocoder``.

    Raises:
        FileNotFoundError: If there is no such source.
        InputError: If the hub cannot be read, or the folder cannot be used.
    """
    if isinstance(source, Backbone):
        source.load_weights()
        return source
    path = resolve_source(source, "backbone", _download)
    index = path / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(f"backbone: {path} holds no model_index.json; give a diffusers AudioLDM2 folder.")
    try:
        kind = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError):
        kind = None
    if kind not in BACKBONES:
        raise InputError(
            f"backbone: {source} holds a {kind or 'damaged model_index.json'}; this program knows "
            f"{', '.join(BACKBONES)}. Give a folder of such a model, or a backbone by class_path."
        )
    return resolve_name(BACKBONES[kind]).from_pretrained(path, dtype, name=str(source), **options)


def _download(name: str) -> str:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.download(name)
