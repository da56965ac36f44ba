"""Which system stands behind each player of the page: the file that listeners never get."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path

KEY_FILE = "key.json"
HIDDEN_SOURCE = "hidden source"


class Item(NamedTuple):
    """One player and what it plays.

    ``control`` is ``"source"`` for a hidden copy of the source, ``"repeat"`` for an edit's second appearance in its set,
    and empty for all others.
    """

    task: str
    id: str
    source: str
    system: str
    control: str = ""


@dataclass(frozen=True)
class Key:
    """A build's name, the rated systems in the table's order, and its items by their tokens."""

    build: str
    systems: list[str]
    items: dict[str, Item]

    def save(self, path: Path) -> None:
        items = {token: item._asdict() for token, item in self.items.items()}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self) | {"items": items}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Key":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing or something else.
        """
        if not path.is_file():
            raise InputError(f"key: {path} is missing; give the {KEY_FILE} that `listening-test build` left.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            items = {token: Item(**item) for token, item in content["items"].items()}
            return cls(str(content["build"]), list(content["systems"]), items)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"key: {path} is no {KEY_FILE} of `listening-test build`.") from None
