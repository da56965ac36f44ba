"""The page's form: the requests that it stands for, and a finished edit as a form, a command line and Python."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.knobs import knobs_of
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
    "guidance_interval",
    "num_inference_steps",
    "scheduler",
    "strength",
    "temperature",
    "top_k",
    "extend",
    "crossfade",
    "sample_rate",
    "match_level",
)
WHOLE = ("time_pooling", "freq_pooling", "num_inference_steps", "top_k", "sample_rate", "seed")
#: Knobs whose fields are texts that hold a number: gradio's field for numbers shows an empty one as 0.
WRITTEN = tuple(name for name in EXPERT if name not in ("scheduler", "match_level"))
#: The knobs that the two sliders move, and those that follow them.
MOVED = (
    *("ap_scale", "ap_scale_end", "time_pooling", "freq_pooling"),
    *("guidance_scale", "text_guidance_scale", "audio_guidance_scale", "guidance_interval"),
)


def presets() -> dict[str, dict[str, Any]]:
    """The task presets by name, each with ``prompt``, ``negative_prompt`` and ``targets``."""
    content = yaml.safe_load(TASKS_FILE.read_text(encoding="utf-8"))
    return {task["name"]: task for task in content["data"]["init_args"]["tasks"]}


def target_label(task: str) -> str:
    """What the field is called that says what the recording shall become."""
    return "Add" if task == "accompaniment" else "Make it"


def expert_knobs(sampling: str) -> list[str]:
    """The knobs of the expert panel that backbones have which generate in this way."""
    return [name for name in EXPERT if knobs_of(EditSettings)[name][0].belongs_to(sampling)]


def texts_of(defaults: EditDefaults, task: str, target: str, source: str) -> tuple[str, str]:
    """Prompt and negative prompt of a task preset.

    Args:
        defaults: Of the backbone, whose negative prompt counts where the preset's does not name the source.
        task: Its name.
        target: What the recording shall become.
        source: What it is, where that is known.
    """
    preset = presets().get(task)
    if preset is None:
        return target, ""
    negative = preset["negative_prompt"]
    if "{source}" not in negative:
        negative = defaults.of(task)["negative_prompt"]
    elif not source:
        negative = ""
    return preset["prompt"].replace("{target}", target), negative.replace("{source}", source)


def moved(defaults: EditDefaults, task: str | None, keep: float, text: float) -> dict[str, Any]:
    """The knobs for a position of the sliders.

    Args:
        defaults: Of the backbone.
        task: Of the edit.
        keep: "Keep melody", 0 to 100: alpha, in proportion; omega is halved from 75 and doubled up to 25.
        text: "Text strength", 0 to 100: lambda of the text, which goes from 1 over the default to its square.

    Returns:
        Values by knob; None, the backbone's own, where a slider does not move a knob. Knobs that follow a moved one, and
        would lose the backbone's value with it, have that value.
    """
    values, found = defaults.of(task), dict.fromkeys(MOVED)
    if keep != MIDDLE:
        found |= {name: _times(values[name], keep / MIDDLE) for name in ("ap_scale", "ap_scale_end")}
    if not 25 < keep < 75:
        omega = values["time_pooling"]
        found["time_pooling"] = max(1, omega // 2) if keep >= 75 else 2 * omega
        found["freq_pooling"] = values["freq_pooling"]
    if text != MIDDLE:
        found |= {name: values[name] for name in ("audio_guidance_scale", "guidance_interval")}
        for name in ("guidance_scale", "text_guidance_scale"):
            found[name] = None if values[name] is None else round(values[name] ** (text / MIDDLE), 2)
    return found


def _times(value: Any, factor: float) -> Any:
    """A number, or all numbers in nested mappings and lists, times a factor."""
    if isinstance(value, Mapping):
        return {name: _times(one, factor) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_times(one, factor) for one in value]
    return None if value is None else round(value * factor, 3)


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
