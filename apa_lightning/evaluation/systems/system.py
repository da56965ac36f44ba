"""The base of systems: one way to turn requests into results, compared with others on the same sources, prompts and seeds."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.knobs import TEXT_CHOICE, differs, is_text, knob
from apa_lightning.editing.request import EditRequest, EditResult


@dataclass(frozen=True, kw_only=True)
class SystemRequest(EditRequest):
    """A request to one of several systems.

    Attributes:
        system: its name.
        source_text: Text that describes the recording, for a system that reads it.
    """

    system: str = ""
    source_text: str = knob(is_text, TEXT_CHOICE, "", batch=differs, late=True)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Those of one system are made together."""
        return (self.system, *super().batch_key)


class System(ABC):
    """One way to edit. A new one is a subclass in a file of its own and a line in ``systems/__init__.py``.

    Attributes:
        name: of its folder and rows.
        description: one line for the report.
        reads: which of a request's settings, and of the task's ``source_text``, decide the result; the others keep their
            defaults, so that changing them makes nothing anew.
        parts: which parts decide it too, among ``adapter``, ``backbone`` (with its vocoder), ``audio_encoder``.
        sampling: the only way of generating that a backbone may have, see :data:`apa_lightning.backbones.edit_batch.Sampling`;
            empty: any.
    """

    name: str = ""
    description: str = ""
    reads: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sampling: ClassVar[str] = ""

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the system makes of a task's settings of one edit: its texts, knobs and ``seed``.

        A knob that is None takes the backbone's default afterwards.
        """
        return {name: values[name] for name in self.reads if name in values}

    def identity(self) -> dict[str, Any]:
        """What else decides the result, such as another model's name."""
        return {}

    def check(self) -> None:  # noqa: B027  most systems have nothing to refuse
        """Refuse before any edit what would fail later.

        Raises:
            InputError: a model that cannot be found, for example.
        """

    @abstractmethod
    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The results of requests that share their knobs and length, in their order."""
