"""Defaults of an edit's knobs that belong to a backbone: general ones, and those of its tasks.

They are a mapping, or a YAML file of one (``edit_defaults.yaml`` in the folder of an AudioLDM2)::

    guidance_scale: 3.5
    tasks:
      genre: {ap_scale: 0.4, time_pooling: 1}

What a task lacks is as in general, and what both lack as in the paper.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from apa_lightning.editing.knobs import knobs_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError

FIELD, PAPER = "edit_defaults", "paper"
KNOBS = {name: knob for name, (knob, _) in knobs_of(EditSettings).items() if knob.is_backbones}
#: The paper's tasks (Sec. 4), where they differ from its timbre transfer.
PAPER_TASKS: dict[str, dict[str, Any]] = {
    "timbre": {},
    "genre": {"ap_scale": 0.4, "time_pooling": 1, "negative_prompt": "low quality music"},
    "accompaniment": {"negative_prompt": "low quality music"},
}
Settings = TypeVar("Settings", bound=EditSettings)


class EditDefaults:
    """The defaults of a backbone.

    Args:
        source: Values by knob, and under ``tasks`` values by knob for each task; a YAML file of such a mapping; or ``paper``
            or None: the paper's values.

    Attributes:
        source: What messages call it: the file, or the field.
        tasks: The names of the tasks that it knows: its own and the paper's.
        sampling: How the backbone generates: knobs of another way have no default.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is not such a mapping, or a knob or task is unknown or out of its range.
    """

    sampling: str = "diffusion"

    def __init__(self, source: Mapping[str, Any] | str | PathLike | None = None):
        is_file = isinstance(source, str | PathLike) and source != PAPER
        self.source = f"{FIELD}: {source}" if is_file else FIELD
        given = self._mapping(_read(Path(source)) if is_file else {} if source == PAPER else source)  # type: ignore[arg-type]
        tasks = self._mapping(given.pop("tasks", None), "tasks: ")
        self._general = self._values(given)
        self._tasks = {
            str(name): self._values(self._mapping(values, f"tasks.{name}: "), f"tasks.{name}.")
            for name, values in tasks.items()
        }
        self.tasks = tuple({**self._tasks, **PAPER_TASKS})

    @property
    def is_papers(self) -> bool:
        """Whether it has no values of its own."""
        return not self._general and not any(self._tasks.values())

    def for_sampling(self, sampling: str) -> Self:
        """The same for a backbone that generates in another way."""
        defaults = copy.copy(self)
        defaults.sampling = sampling
        return defaults

    def of(self, task: str | None = None) -> dict[str, Any]:
        """The values by knob, of a task or in general.

        Raises:
            InputError: If the task is unknown.
        """
        if task is not None and task not in self.tasks:
            raise InputError(f"task: {task!r} is not one that the backbone knows; choose from {', '.join(self.tasks)}.")
        values = {name: knob.paper if knob.belongs_to(self.sampling) else None for name, knob in KNOBS.items()}
        for level in (PAPER_TASKS.get(task or "", {}), self._general, self._tasks.get(task or "", {})):
            values |= {name: None for name, knob in KNOBS.items() if knob.follows in level} | level
        return values

    def filled(self, values: Mapping[str, Any], task: str | None = None) -> dict[str, Any]:
        """``values`` by knob, with the defaults in place of None. See :attr:`Knob.follows`."""
        stored, unset = self.of(task), {name for name, value in values.items() if value is None}
        mine = {name for name in unset & KNOBS.keys() if not KNOBS[name].follows or KNOBS[name].follows in unset}
        return {name: stored[name] if name in mine else value for name, value in values.items()}

    def fill(self, settings: Settings) -> Settings:
        """The settings with the defaults of their task in place of None."""
        filled = self.filled(vars(settings), settings.task)
        return replace(settings, **{name: filled[name] for name in KNOBS})

    def _mapping(self, content: object, field: str = "") -> dict[str, Any]:
        if not isinstance(content, Mapping | None):
            raise InputError(
                f"{self.source}: {field}{content!r} is not a mapping; give values by knob: {{guidance_scale: 3.5}}."
            )
        return dict(content or {})

    def _values(self, given: Mapping[str, Any], field: str = "") -> dict[str, Any]:
        """The given values, checked."""
        for name, value in given.items():
            if name not in KNOBS:
                raise InputError(
                    f"{self.source}: {field}{name} is not a knob with a default; choose from {', '.join(KNOBS)}"
                    f"{'' if field else ', tasks'}."
                )
            try:
                EditSettings.check(name, value)
            except InputError as error:
                raise InputError(f"{self.source}: {field}{error}") from None
        return {name: value for name, value in given.items() if value is not None}


def _read(path: Path) -> object:
    """The content of a YAML file."""
    try:
        return yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{FIELD}: {path} does not exist. Give a YAML file of values by knob, '{PAPER}', or leave it out."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"{FIELD}: {path} is not a readable YAML file ({' '.join(str(error).split())}). "
            "Give values by knob: guidance_scale: 3.5"
        ) from None
