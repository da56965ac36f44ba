"""Data tables of the composer, kept as YAML: instruments, genres, kinds of pieces, rhythms."""

from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).with_name("tables")


def read_table(name: str) -> Any:
    """Read `tables/<name>.yaml`; lists come as tuples, so that the table can be part of frozen classes."""
    return _frozen(yaml.safe_load((_FOLDER / f"{name}.yaml").read_bytes()))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
