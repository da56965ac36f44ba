"""Checks of planned edits that need the loaded model, and what of the model decides an edit's sound."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apa_lightning.edit_jobs.manifest import Problems
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError


def check_against_editor(edits: Sequence[Edit], settings: EditSettings, editor: AudioEditor) -> list[Edit]:
    """Check what only the loaded parts know: defaults and tasks, schedulers and their steps, adapted blocks, the audio encoder's grid.

    Args:
        edits: All edits.
        settings: The defaults of all edits; a problem with them is reported once, not for every edit.
        editor: The editor that will make them.

    Returns:
        The edits with the backbone's defaults in place of settings that are None.

    Raises:
        InputError: If an edit cannot be made; the message lists all problems.
    """
    settings = editor.filled(settings)
    editor.check_sampling(settings)
    editor.check_scale(settings)
    editor.check_pooling(settings)
    problems = Problems()
    found: dict[tuple, list[InputError]] = {}  # edits mostly share their knobs
    filled = []
    for edit in edits:
        try:
            request = editor.filled(edit.request)
        except InputError as error:
            problems.add(edit.where, error)
            continue
        filled.append(replace(edit, request=request))
        key = request.batch_key
        if key not in found:
            found[key] = editor.problems(request)
        for problem in found[key]:
            problems.add(edit.where, problem)
    problems.raise_any("the edits")
    return filled


def identity_of(editor: AudioEditor) -> dict[str, dict[str, Any]]:
    """Everything of an editor that decides the sound of an edit, by part: if it changes, the edit is made again."""
    adapter, backbone = editor.adapters[0], editor.backbone
    return {
        "adapter": {
            "adapter": ",".join(one.digest() for one in editor.adapters),
            "unconditional_audio": editor.unconditional_audio,
        },
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
