"""Captions from AudioSet labels: one of 15 templates over the labels joined by ", " (paper, section 4.1)."""

from collections.abc import Sequence

import torch

from apa_lightning.conditioning.caption_templates import TEMPLATES
from apa_lightning.errors import InputError


class CaptionTemplates:
    """Turns a sample's labels into a prompt.

    Args:
        templates: Texts with one `{}` each; None means the 15 of `TEMPLATES`.
        lowercase: Write "violin, fiddle" for AudioSet's "Violin, fiddle"; acronyms stay as they are.
        prefer_stored: Use a sample's own `caption` if it has one.

    Raises:
        InputError: If there is no template, or one does not have exactly one `{}`.
    """

    def __init__(
        self, templates: Sequence[str] | None = None, lowercase: bool = True, prefer_stored: bool = True
    ) -> None:
        self.templates = tuple(TEMPLATES if templates is None else templates)
        self.lowercase = lowercase
        self.prefer_stored = prefer_stored
        if not self.templates:
            raise InputError("caption_templates: is empty; give at least one text with {}, or null.")
        for template in self.templates:
            if template.count("{}") != 1:
                raise InputError(f"caption_templates: '{template}' must contain {{}} exactly once.")

    def caption(self, labels: Sequence[str], stored: str | None, generator: torch.Generator) -> str:
        """Return the prompt of one sample.

        Args:
            labels: At least one AudioSet display name.
            stored: The sample's own caption, if any.
            generator: Draws the template; one number is always drawn.
        """
        choice = int(torch.randint(len(self.templates), (), generator=generator))
        return self._stored(stored) or self.templates[choice].replace("{}", self._names(labels))

    def captions(self, labels: Sequence[str], stored: str | None) -> list[str]:
        """Return every prompt that `caption` can give to one sample."""
        if caption := self._stored(stored):
            return [caption]
        names = self._names(labels)
        return [template.replace("{}", names) for template in self.templates]

    def _stored(self, stored: str | None) -> str:
        return stored.strip() if self.prefer_stored and stored else ""

    def _names(self, labels: Sequence[str]) -> str:
        names = map(str.strip, labels)
        return ", ".join(map(lower_first, names) if self.lowercase else names)


def lower_first(label: str) -> str:
    """Write the first letter of a label in lower case, except in an acronym: "Heavy metal" -> "heavy metal", "R&B" -> "R&B"."""
    first_word = label.split(" ", 1)[0]
    if len(first_word) > 1 and not first_word[1:].islower():
        return label
    return label[:1].lower() + label[1:]
