"""The page's form: the requests that it stands for, and a finished edit as a form, a command line and Python."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.request import EditRequest
from apa_lightning.editing.settings import EditSettings
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError

TASKS_FILE = Path(__file__).parents[1] / "configs" / "tasks" / "all.yaml"
MOST_VARIATIONS = 8
#: Where a slider stands for the backbone's own value.
MIDDLE = 50
#: The knobs of the expert panel. A field that is empty leaves its knob out.
EXPERT = (
    "ap_scale",
    "ap_scale_end",
    "time_pooling",
    "freq_pooling",
    "guidance_scale",
    "text_guidance_scale",
    "audio_guidance_scale",
    "num_inference_steps",
    "scheduler",
    "strength",
    "extend",
    "crossfade",
    "sample_rate",
    "match_level",
)
WHOLE = ("time_pooling", "freq_pooling", "num_inference_steps", "sample_rate", "seed")
#: Knobs whose fields are texts that hold a number: gradio's field for numbers shows an empty one as 0.
WRITTEN = tuple(name for name in EXPERT if name not in ("scheduler", "match_level"))
#: The knobs that the two sliders move.
MOVED = ("ap_scale", "time_pooling", "guidance_scale")


def presets() -> dict[str, dict[str, Any]]:
    """The task presets by name, each with ``prompt``, ``negative_prompt`` and ``targets``."""
    content = yaml.safe_load(TASKS_FILE.read_text(encoding="utf-8"))
    return {task["name"]: task for task in content["data"]["init_args"]["tasks"]}


def texts_of(task: str, target: str, source: str) -> tuple[str, str]:
    """Prompt and negative prompt of a task preset.

    Args:
        task: Its name.
        target: What the recording shall become.
        source: What it is, where that is known.
    """
    preset = presets().get(task)
    if preset is None:
        return target, ""
    prompt, negative = (preset[name].replace("{target}", target) for name in ("prompt", "negative_prompt"))
    return prompt, "" if "{source}" in negative and not source else negative.replace("{source}", source)


def moved(defaults: EditDefaults, task: str | None, keep: float, text: float) -> dict[str, Any]:
    """The knobs for a position of the sliders.

    Args:
        defaults: Of the backbone.
        task: Of the edit.
        keep: "Keep melody", 0 to 100: alpha, in proportion; omega is halved from 75 and doubled up to 25.
        text: "Text strength", 0 to 100: lambda, which goes from 1 over the default to its square.

    Returns:
        Values by knob; None, the backbone's own, where a slider does not move a knob.
    """
    values, found = defaults.of(task), dict.fromkeys(MOVED)
    alpha, omega, scale = (values[name] for name in MOVED)
    if keep != MIDDLE and isinstance(alpha, int | float):
        found["ap_scale"] = round(alpha * keep / MIDDLE, 3)
    if keep >= 75:
        found["time_pooling"] = max(1, omega // 2)
    elif keep <= 25:
        found["time_pooling"] = 2 * omega
    if text != MIDDLE:
        found["guidance_scale"] = round(scale ** (text / MIDDLE), 2)
    return found


def requests(
    form: Mapping[str, Any], recording: Recording, editor: Any, variations: int = 1, text_only: bool = False
) -> list[EditRequest]:
    """The edits that a form asks for: variations with seeds in a row, then the first one by text alone.

    Args:
        form: Values by field: ``prompt`` and knobs; None and "" leave a knob out, but for the texts.
        recording: What is edited.
        editor: Whose parts the settings must suit.
        variations: Number of edits.
        text_only: Whether the version without the recording is made too.

    Raises:
        InputError: If a value cannot be used.
    """
    if not 1 <= variations <= MOST_VARIATIONS:
        raise InputError(f"variations: {variations}; give 1 to {MOST_VARIATIONS}.")
    if not str(form.get("prompt") or "").strip():
        raise InputError(
            "prompt: is empty; say what the recording shall become, such as 'a recording of a violin solo'."
        )
    known = ("prompt", "negative_prompt", *EditSettings.names())
    values = {name: _plain(name, value) for name, value in form.items() if name in known}
    values = {name: value for name, value in values.items() if value is not None}
    first = EditRequest(audio=recording, id=Path(recording.name).stem or None, **values)
    for problem in editor.problems(first):
        raise problem
    Recording.load(recording, first)
    made = [replace(first, seed=first.seed + number) for number in range(variations)]
    if text_only:
        made.append(replace(first, ap_scale=0.0, ap_scale_end=None, audio_guidance_scale=None))
    return made


def _plain(name: str, value: Any) -> Any:
    """A field's value as a knob takes it; None where the field is empty."""
    if value == "" and name not in ("prompt", "negative_prompt"):
        return None
    if name in WRITTEN and isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value  # which the knob refuses
    is_whole = name in WHOLE and isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value


def knobs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a finished edit that say something: those whose default is another value."""
    plain = {name: settings[name] for name in EditSettings.names() if name in settings}
    defaults = vars(EditSettings())
    return {name: value for name, value in plain.items() if value is not None and value != defaults[name]}


def command_line(name: str, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The lines for a terminal that make an edit again.

    Args:
        name: File of the recording.
        settings: Of the edit, from its record.
        parts: Flags of the studio that differ from the defaults: ``backbone``, ``adapter`` and so on.
    """
    row = {
        "audio": name,
        "id": Path(name).stem,
        "prompt": settings["prompt"],
        **knobs(settings),
        "seed": settings["seed"],
    }
    flags = "".join(f" \\\n    --model.{flag} {shlex.quote(str(value))}" for flag, value in parts.items())
    return (
        f"cat > edit.jsonl <<'END'\n{json.dumps(row)}\nEND\n"
        f"python -m apa_lightning predict --config pkg:predict.yaml --data.manifest edit.jsonl{flags}"
    )


def python_code(name: str, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The Python that makes an edit again; arguments as in :func:`command_line`."""
    given = {"prompt": settings["prompt"], **knobs(settings), "seed": settings["seed"]}
    arguments = "".join(f"    {knob}={value!r},\n" for knob, value in given.items())
    loaded = ", ".join(f"{flag}={value!r}" for flag, value in parts.items())
    return (
        "from apa_lightning import AudioEditor\n\n"
        f"editor = AudioEditor.from_pretrained({loaded})\n"
        f"result = editor.edit(\n    {name!r},\n{arguments})\n"
        'result.save("edit.wav")'
    )
