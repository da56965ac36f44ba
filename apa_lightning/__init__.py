"""apa_lightning: train, evaluate and use Audio Prompt Adapters (arXiv 2407.16564) for editing music by text."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apa_lightning.adapter import AudioPromptAdapter
    from apa_lightning.audio_encoder import AudioMAE
    from apa_lightning.backbone import AudioLDM2Backbone
    from apa_lightning.edit_request import EditRequest, EditResult
    from apa_lightning.editing import AudioEditor
    from apa_lightning.errors import InputError
    from apa_lightning.module import AudioPromptModule

# Loaded on first use, so that importing one name does not import Lightning or diffusers for the others.
_HOMES = {
    "AudioEditor": "editing",
    "EditRequest": "edit_request",
    "EditResult": "edit_request",
    "AudioLDM2Backbone": "backbone",
    "AudioMAE": "audio_encoder",
    "AudioPromptAdapter": "adapter",
    "AudioPromptModule": "module",
    "InputError": "errors",
}
__all__ = [
    "AudioEditor",
    "AudioLDM2Backbone",
    "AudioMAE",
    "AudioPromptAdapter",
    "AudioPromptModule",
    "EditRequest",
    "EditResult",
    "InputError",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
