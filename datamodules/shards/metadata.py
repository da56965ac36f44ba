"""Reads the JSON member of a sample: its labels and, optionally, its caption."""

import ast
import contextlib
import json
import math
import re
from typing import Any

from datamodules.shards.samples import BadSample

MAX_METADATA_BYTES = 1 << 20

_LABEL_ID = re.compile(r"/[a-z]/[A-Za-z0-9_]+")


def parse_metadata(data: bytes) -> dict[str, Any]:
    """Read an object with `labels` and, optionally, a `caption`.

    Returns:
        The object; `labels` is a list of at least one name, and there is a `caption` only where it is a text.

    Raises:
        BadSample: If the bytes are not such an object.
    """
    if len(data) > MAX_METADATA_BYTES:
        raise BadSample("bad JSON", f"{len(data)} bytes; at most {MAX_METADATA_BYTES} are read")
    try:
        metadata = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample("bad JSON", str(error)) from None
    if not isinstance(metadata, dict):
        raise BadSample("bad JSON", f"an object is needed, not {type(metadata).__name__}")
    return check_metadata(metadata)


def check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata with `labels` as a list of names, and without a `caption` that is absent.

    Raises:
        BadSample: If there are no labels, if they are ids such as `/m/04rlf`, or if the caption is not a text.
    """
    labels = metadata.get("labels")
    names = split_labels(labels) if isinstance(labels, str) else labels
    if isinstance(names, list):
        names = [name for name in names if not _is_null(name)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise BadSample("labels missing", f'"labels" must be a list of at least one name, not {str(labels)[:80]}')
    if ids := [name for name in names if _LABEL_ID.fullmatch(name)]:
        raise BadSample(
            "labels missing", f"'{ids[0]}' is an id; write the label's display name, such as 'Violin, fiddle'"
        )
    metadata = {**metadata, "labels": names}
    if _is_null(metadata.get("caption")):
        metadata.pop("caption", None)
    elif not isinstance(metadata["caption"], str):
        raise BadSample("bad JSON", f'"caption" must be a text or null, not {str(metadata["caption"])[:80]}')
    return metadata


def split_labels(text: str) -> list[str]:
    """Split labels that are written as one text.

    Ids (`/m/a,/m/b`) may stand in any order and notation. Names are a JSON or Python list, or are separated by
    semicolons, vertical bars, or commas without a space: a comma with a space belongs to a name ("Violin, fiddle").
    """
    text = text.strip()
    if _LABEL_ID.match(text.lstrip("""[('" """)):
        return _LABEL_ID.findall(text)
    if text.startswith("["):
        for parse in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                return [label for label in parse(text) if isinstance(label, str)]
    separator = next((mark for mark in (";", r"\|") if re.search(mark, text)), r",(?!\s)")
    return [label.strip() for label in re.split(separator, text) if label.strip()]


def _is_null(value: object) -> bool:
    """Whether a value is absent: null, NaN (which pandas writes) or a blank text."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )
