"""The backbone's defaults in ``--print_config``: the values that edits will have, where the settings have null."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from jsonargparse import Namespace

from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings
from apa_lightning.utils.pretrained import EMBEDDED, HUB_ID, packaged


def with_edit_defaults(settings: Namespace) -> Namespace:
    """The settings of a command that edits, with the defaults of their backbone. No model is loaded.

    ``predict`` gets them for its ``task``, each of ``evaluate``'s tasks in its ``point``. Settings of other commands stay as
    they are, and those whose backbone is an object, which alone knows its defaults.
    """
    model, data = (settings.get(f"{key}.init_args") for key in ("model", "data"))
    if model is None or data is None or "ap_scale" not in data or not isinstance(model.get("backbone"), str):
        return settings
    from apa_lightning.backbones.factory import (  # torch takes a second, and only an edit needs it
        sampling_of,
        stored_defaults,
    )

    folder = folder_of(model.backbone)
    defaults = EditDefaults(model.get("edit_defaults") or stored_defaults(folder)).for_sampling(sampling_of(folder))
    given = {name: data[name] for name in EditSettings.names()}
    settings = settings.clone()
    shown: Any = settings.data.init_args
    if "systems" not in data:
        for name, value in defaults.filled(given, data.task).items():
            shown[name] = value
        return settings
    for task in shown.tasks or ():
        point = {**{name: given[name] for name in EditSettings.operating_point()}, **task["point"]}
        filled = defaults.filled(point, task["name"] if task["name"] in defaults.tasks else data.task)
        task["point"] = {name: value for name, value in filled.items() if value is not None and given[name] is None}
    return settings


def folder_of(backbone: str) -> Path:
    """The folder of a backbone, also where it is in the Hugging Face cache; it may not exist."""
    folder = packaged() if backbone == EMBEDDED else Path(backbone).expanduser()
    if folder.exists() or not HUB_ID.fullmatch(backbone):
        return folder
    cached = (try_to_load_from_cache(backbone, name) for name in ("model_index.json", "config.json"))
    return next((Path(file).parent for file in cached if isinstance(file, str)), folder)
