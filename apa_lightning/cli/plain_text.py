"""Reading of settings: text is kept as it is typed, and the type of a setting says what else its text may mean.

YAML reads much text as something else (``yes`` as a boolean, ``1:30`` as 90, ``#1 hit`` as null), and jsonargparse reads each
string as YAML once more, even one that is quoted in a file. Here a value without quotes is a number or a boolean only where
its spelling can be had back. Everything else is text, which a setting of another type reads (``lr: 1e-4``).
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from jsonargparse import set_dumper, set_loader

from apa_lightning.editing.knobs import Text
from apa_lightning.utils.lightning_compat import read_values_with, relative_interpolations

MODE = "omegaconf+"
NULLS = ("null", "~", "")


class _Loader(yaml.SafeLoader):
    """YAML whose plain values keep their spelling."""


class _Dumper(yaml.SafeDumper):
    """Writes text so that every reader of YAML sees text."""


def _scalar(_: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    """A number or boolean whose spelling can be had back; else the text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            if str(value := kind(node.value)) == node.value:
                return value
    return {"true": True, "false": False}.get(node.value, node.value)


for tag in ("bool", "int", "float", "timestamp", "value", "merge"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", _scalar)
# An exponent without a point is text to PyYAML, and a number to OmegaConf and jsonargparse.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.\d_]+[eE][-+]?\d+$"), list("-+.0123456789"))
# Words of an enumeration, which are defaults of settings that are text.
_Dumper.add_multi_representer(str, lambda dumper, word: dumper.represent_str(str.__str__(word)))


def load(content: str) -> Any:
    """Read the content of a configuration file, or the value of a setting that can be more than text."""
    value = yaml.load(content, Loader=_Loader)
    if value is None and content.strip() not in NULLS:
        return content  # "#1 hit" is a comment to YAML
    return relative_interpolations(value) if isinstance(value, dict) else value


def read_plain_text() -> None:
    """Let every parser of the program read and write settings in this way."""
    set_loader(MODE, load, (yaml.YAMLError, ValueError, RecursionError))
    set_dumper("yaml", lambda data: yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
    read_values_with(as_typed)


def as_typed(value: Any, kind: Any) -> tuple[Any, bool]:
    """Read a value as far as its type decides how.

    Args:
        value: The value from a file or a command line.
        kind: The type of the setting.

    Returns:
        The value, and whether it is text that must not be read as YAML.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if all(_is_text(one) for one in kinds if one is not NoneType):
        if value == "null" and NoneType in kinds and Text not in kinds:
            return None, False  # a path of that name is ./null
        is_plain = type(value) in (str, int, float, bool)  # and not a word of an enumeration
        return (_spelled(value) if is_plain else value), is_plain
    if isinstance(value, list | dict) and "typing.Any" in str(kind):
        return _with_numbers(value), False
    items = next((get_args(one) for one in kinds if get_origin(one) in (list, tuple, Sequence)), ())
    return ([as_typed(one, items[0])[0] for one in value] if items and isinstance(value, list) else value), False


def _is_text(kind: Any) -> bool:
    return kind in (str, Path, Text) or (get_origin(kind) or kind) is os.PathLike


def _spelled(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_numbers(value: Any) -> Any:
    """Numbers for text such as 0.50 inside of values whose type says nothing."""
    if isinstance(value, dict):
        return {key: _with_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    return (
        float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", value) else value
    )
