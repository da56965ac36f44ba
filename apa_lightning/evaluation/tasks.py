"""Tasks of the paper (Sec. 4): what recordings shall become, by which words, and at which operating point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError

#: Knobs of an operating point: a task may fix them and a sweep may try values of them.
POINT = EditSettings.operating_point()
_FIELDS = ("{source}", "{target}")


@dataclass(frozen=True)
class Task:
    """One task. In every text ``{target}`` stands for what a recording shall become, ``{source}`` for what it is.

    Attributes:
        name: of its folder and of its rows, and of the task whose defaults the backbone gives, where it knows it.
        prompt: c_y of Eq. 12.
        negative_prompt: c_y- of Eq. 12.
        score_text: what CLAP compares an edit with; empty: the prompt.
        source_text: what CLAP compares a source with, for directional CLAP; empty: "a recording of a {source} solo".
        targets: a recording's own instrument is left out.
        recognise: ask the pocket's judge whether the target, an instrument, is what plays.
        point: knobs of the operating point that differ from ``--data``'s and from the backbone's defaults.

    Raises:
        InputError: a text without its ``{target}``, a field that is unknown, no targets, a knob outside its range.
    """

    name: str
    prompt: str
    targets: Sequence[str]
    negative_prompt: str = ""
    score_text: str = ""
    source_text: str = ""
    recognise: bool = False
    point: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not all(letter.isalnum() or letter in "-_" for letter in self.name):
            raise InputError(f"tasks.name: {self.name!r}; give letters, digits, '-' and '_': it names a folder.")
        if "{target}" not in self.prompt:
            raise InputError(f"tasks.prompt: {self.prompt!r} must contain {{target}}; the target is put there.")
        for name in ("prompt", "negative_prompt", "score_text", "source_text"):
            rest = getattr(self, name)
            for known in _FIELDS:
                rest = rest.replace(known, "")
            if "{" in rest or "}" in rest:
                raise InputError(f"tasks.{name}: {getattr(self, name)!r}; it may hold {{source}} and {{target}} alone.")
        targets = list(self.targets)
        if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
            raise InputError(f"tasks.targets: {targets!r}; give at least one target, none of them empty.")
        if unknown := sorted(set(self.point) - set(POINT)):
            raise InputError(f"tasks.point: {', '.join(unknown)} is unknown; choose from {', '.join(POINT)}.")
        EditSettings(**dict(self.point))

    def texts(self, source: str, target: str) -> dict[str, str]:
        """``prompt``, ``negative_prompt``, ``score_text`` and ``source_text`` of one edit."""
        texts = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "score_text": self.score_text or self.prompt,
            "source_text": self.source_text or "a recording of a {source} solo",
        }
        return {name: text.replace("{source}", source).replace("{target}", target) for name, text in texts.items()}

    def targets_for(self, instrument: str, number: int, most: int) -> list[str]:
        """Up to ``most`` targets of source ``number``; the first one moves on from source to source."""
        others = [target for target in self.targets if target != instrument] or list(self.targets)
        return [others[(number + k) % len(others)] for k in range(min(most, len(others)))]


def check_names(tasks: Sequence[Task]) -> None:
    """Raise :class:`InputError` where there is no task, or two of one name."""
    names = [task.name for task in tasks]
    if not names:
        raise InputError("tasks: empty; give a task: --config configs/tasks/timbre.yaml")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"tasks: {', '.join(sorted(twice))} is there twice; give each task its own name.")
