"""Systems that are the editor itself with other settings: the adapter, its ablations, text alone, SDEdit."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from apa_lightning.conditioning.dropout import DroppedAudio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.settings import EditSettings
from apa_lightning.evaluation.systems.system import System

#: Everything that an edit depends on, and the same without the audio prompt's knobs.
_SETTINGS = ("prompt", "negative_prompt", *EditSettings.operating_point(), "extend", "seed")
_OF_AUDIO = ("ap_scale", "ap_scale_end", "time_pooling", "freq_pooling", "audio_guidance_scale", "audio_prompts")
_OF_TEXT = tuple(name for name in _SETTINGS if name not in _OF_AUDIO)


class Adapter(System):
    """AP-Adapter at the task's operating point, or with some knobs elsewhere.

    Args:
        fixed: knobs with another value than the task's; they become part of the name, for sweeps.
    """

    name = "adapter"
    description = "AP-Adapter at the task's operating point"
    reads: tuple[str, ...] = _SETTINGS
    parts: tuple[str, ...] = ("adapter", "backbone", "audio_encoder")

    def __init__(self, fixed: Mapping[str, Any] | None = None):
        self.fixed = dict(fixed or {})
        if self.fixed:
            knobs = " ".join(f"{name}={value}".replace(" ", "") for name, value in self.fixed.items())
            self.name, self.description = f"{self.name} {knobs}", f"{self.description}, but {knobs.replace(' ', ', ')}"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The task's, with the fixed ones in their place."""
        return {**super().settings(values), **self.fixed}

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The editor's."""
        return editor.edit(list(requests), batch_size=len(requests), progress=False)


class NoNegative(Adapter):
    """The paper's ablation: guidance against the empty prompt."""

    name = "no_negative"
    description = "the adapter without the negative prompt"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().settings(values), "negative_prompt": ""}


class Untrained(Adapter):
    """What training starts from: a copy of the backbone's own text K/V."""

    name = "untrained"
    description = "the adapter before its training: a copy of the backbone's text layers"
    parts = ("backbone", "audio_encoder")

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The editor's with new adapters of the same names."""
        untrained = []
        for trained in editor.adapters:
            adapter = editor.backbone.new_adapter(None).to(editor.backbone.device, editor.backbone.dtype)
            adapter.name = trained.name
            untrained.append(adapter)
        unconditional = cast(DroppedAudio, editor.unconditional_audio)
        parts = editor.backbone, editor.audio_encoder, untrained, unconditional, editor.edit_defaults
        return super().edit(AudioEditor(*parts), requests)


class TextOnly(Adapter):
    """alpha = 0: the recording has no influence."""

    name = "text_only"
    description = "text alone (alpha 0): the recording has no influence"
    reads = _OF_TEXT
    parts = ("backbone",)

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().settings(values), "ap_scale": 0.0}


class SDEdit(TextOnly):
    """The paper's baseline AudioLDM2-SDEdit: text alone, from the recording under noise at 0.75 of the schedule."""

    name = "sdedit"
    description = "SDEdit, the baseline: text alone, started from the recording under noise at 0.75 of the schedule"
    sampling = "diffusion"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().settings(values), "strength": 0.75, **self.fixed}
