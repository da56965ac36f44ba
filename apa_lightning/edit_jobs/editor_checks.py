"""Checks of planned edits that need the loaded model, and what of the model decides an edit's sound."""

from collections.abc import Callable, Sequence
from typing import Any

from apa_lightning.adapters.scale import expand_scale
from apa_lightning.edit_jobs.manifest import Problems
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError


def check_against_editor(edits: Sequence[Edit], settings: EditSettings, editor: AudioEditor) -> None:
    """Check what only the backbone knows: its schedulers, their steps, and the blocks that an `ap_scale` may name.

    Args:
        edits: All edits.
        settings: The defaults of all edits; a problem with them is reported once, not for every edit.
        editor: The editor that will make them.

    Raises:
        InputError: If an edit cannot be made; the message lists all problems.
    """

    def check_steps(name: str, steps: int) -> None:
        editor.backbone.make_scheduler(name, steps)

    def check_scale(ap_scale: Any) -> None:
        scales = ap_scale if isinstance(ap_scale, list | tuple) else [ap_scale]
        if len(scales) != 1:
            raise InputError(f"ap_scale: {len(scales)} scales for one adapter; give one number.")
        expand_scale(scales[0], editor.adapters[0].layer_names)

    editor.backbone.make_scheduler(settings.scheduler)
    check_scale(settings.ap_scale)
    problems = Problems()
    found: dict[str, InputError | None] = {}  # edits mostly share their knobs
    for edit in edits:
        request = edit.request
        for check, values in (
            (check_steps, (request.scheduler, request.num_inference_steps)),
            (check_scale, (request.ap_scale,)),
        ):
            if (knobs := repr(values)) not in found:
                found[knobs] = _complaint(check, values)
            if (error := found[knobs]) is not None:
                problems.add(edit.where, error)
    problems.raise_any("the edits")


def identity_of(editor: AudioEditor) -> dict[str, dict[str, Any]]:
    """Everything of an editor that decides the sound of an edit, by part: if it changes, the edit is made again."""
    adapter, backbone = editor.adapters[0], editor.backbone
    return {
        "adapter": {"adapter": adapter.digest(), "unconditional_audio": editor.unconditional_audio},
        "backbone": {
            "backbone": backbone.name,
            "backbone_fingerprint": adapter.backbone_fingerprint.tolist(),
            **backbone.identity(),
        },
        "audio_encoder": {
            "audio_encoder": adapter.metadata.get("audio_encoder"),
            **editor.audio_encoder.conventions(),
        },
    }


def _complaint(check: Callable[..., None], values: tuple) -> InputError | None:
    try:
        check(*values)
    except InputError as error:
        return error
    return None
