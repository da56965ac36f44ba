"""The key: the system behind each player of the page, in a file that listeners never get."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file

KEY_FILE = "key.json"
HIDDEN_SOURCE = "hidden source"


class Item(NamedTuple):
    """One player and its audio.

    Attributes:
        task: Task of the edit.
        id: Id of the edit.
        source: Recording that was edited.
        system: System that made the edit.
        control: ``"source"`` for a hidden copy of the source, ``"repeat"`` for the second appearance of an edit in its
            set, empty otherwise.
    """

    task: str
    id: str
    source: str
    system: str
    control: str = ""


@dataclass(frozen=True)
class Key:
    """The key of one test.

    Attributes:
        build: Name of the test.
        systems: Rated systems, in the order of the table.
        items: Items by token.
    """

    build: str
    systems: list[str]
    items: dict[str, Item]

    def save(self, path: Path) -> None:
        """Write the key as JSON."""
        items = {token: item._asdict() for token, item in self.items.items()}
        write_file(path, json.dumps(asdict(self) | {"items": items}, indent=1))

    @classmethod
    def load(cls, path: Path) -> "Key":
        """Read a file that :meth:`save` wrote.

        Raises:
            InputError: If the file is missing or is not a key.
        """
        if not path.is_file():
            raise InputError(f"key: {path} is missing; give the {KEY_FILE} that `listening-test build` wrote.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            items = {token: Item(**item) for token, item in content["items"].items()}
            return cls(str(content["build"]), list(content["systems"]), items)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"key: {path} is not a {KEY_FILE} of `listening-test build`.") from None
