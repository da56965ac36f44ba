"""A manifest of edits: CSV (also with `;` or tabs) or JSONL, one edit per row.

Columns: `audio` (relative paths start at the manifest's folder), `prompt`, `id` (default: the audio's stem), `output`
(default: `<id>.wav`), and one for each knob of :class:`EditSettings`. Only `audio` is needed, and `prompt` unless the command
sets one for all rows. A missing column or key, an empty CSV cell and `null` mean the command's setting; an empty `prompt`
without one means unconditional. A list or mapping is JSON in both formats; a `region` of one start and end may have the columns
`region_start` and `region_end` instead.

Files of pandas and Excel are read as they are: a column that numbers the rows, 2.0 for 2, NaN, a first line `sep=;`, UTF-16.
"""

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError

DELIMITERS = ",;\t"
#: Excel's own first line.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*(\r\n?|\n|$)')
CSV_SUFFIXES, JSONL_SUFFIXES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson", ".json")
MAX_LISTED = 100
_DEFAULTS = {"prompt": " (`prompt` of the command would set one for all)"}


@dataclass
class ManifestRow:
    """One line of a manifest.

    Attributes:
        where: File and line, for messages; empty for the rows of a folder.
        values: Typed values by column.
        empty: Columns whose cell is empty.
    """

    where: str
    values: dict[str, Any]
    empty: frozenset[str] = frozenset()


@dataclass
class Problems:
    """A list of everything that is wrong, so that all of it can be corrected at once.

    Attributes:
        messages: One for each problem.
        way_out: What can be done about all of them, if there is such a thing.
    """

    messages: list[str] = field(default_factory=list)
    way_out: str = ""

    def add(self, where: str, message: object) -> None:
        """Add a message, unless it is listed already."""
        text = f"{where}: {message}" if where else str(message)
        if text not in self.messages:
            self.messages.append(text)

    def raise_any(self, source: str) -> None:
        """Raise one :class:`InputError` that lists all problems, if there are any."""
        if not self.messages:
            return
        listed = self.messages[:MAX_LISTED]
        if len(self.messages) > MAX_LISTED:
            listed.append(f"and {len(self.messages) - MAX_LISTED} more")
        count = "1 problem" if len(self.messages) == 1 else f"{len(self.messages)} problems"
        listed += [self.way_out] if self.way_out else []
        raise InputError(f"{source}: {count}; nothing was edited.\n  " + "\n  ".join(listed))


def read_manifest(path: str | PathLike, required: Collection[str], problems: Problems) -> list[ManifestRow]:
    """Read the rows of a manifest.

    Args:
        path: The file.
        required: Columns that every row must have.
        problems: Gets the lines that cannot be read or lack a required column.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the file is neither CSV nor JSONL, is neither UTF-8 nor UTF-16, or has no rows.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"manifest: {path} does not exist. Give a CSV or JSONL file.")
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in CSV_SUFFIXES + JSONL_SUFFIXES:
        raise InputError(f"manifest: {path} is neither .csv nor .jsonl. For a folder of recordings use `folder`.")
    found = len(problems.messages)
    read_rows = _jsonl_rows if suffix in JSONL_SUFFIXES else _csv_rows
    rows = list(read_rows(path, _read_text(path), required, problems))
    if not rows and len(problems.messages) == found:
        raise InputError(f"manifest: {path} holds no edit. Write one per line; audio and prompt are enough.")
    return rows


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        way_out = "Save the file as UTF-8 (in a spreadsheet: CSV UTF-8)."
        raise InputError(f"manifest: {path}:{line} is not UTF-8. {way_out}") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"manifest: {path}:{line} contains zero bytes and is not a text file. Save it as UTF-8.")
    return text


# --- CSV ------------------------------------------------------------------------------------------------------------


def _csv_rows(path: Path, text: str, required: Collection[str], problems: Problems) -> Iterator[ManifestRow]:
    if separator := SEPARATOR_LINE.match(text):
        delimiter, text = separator[1], "\n" + text[separator.end() :]
    else:
        delimiter = max(DELIMITERS, key=(text.lstrip().splitlines() or [""])[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    quote_it = f"Put text that holds {delimiter!r} in double quotes."
    header: list[str] = []
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add(
                where,
                f"broken CSV ({error}). Put text that holds {delimiter!r}, a quote or a line "
                "break in double quotes, and double the quotes inside. The lines after it were not read.",
            )
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            while not header[-1]:  # spreadsheets leave nameless columns at the end
                header.pop()
            _check_header(header, required, where, problems)
            if not set(header).issuperset(required):
                return  # reported once, not for every row
        elif any(cells[len(header) :]):
            problems.add(where, f"has {len(cells)} cells, the first line names {len(header)} columns. {quote_it}")
        else:
            named = {name: cell for name, cell in zip(header, cells, strict=False) if name in COLUMNS}
            empty = frozenset(name for name, cell in named.items() if not cell.strip())
            yield ManifestRow(where, _typed_cells(named, where, problems), empty)


def _check_header(header: list[str], required: Collection[str], where: str, problems: Problems) -> None:
    for position, name in enumerate(header):
        if name not in COLUMNS and not _numbers_rows(name or f"Unnamed: {position}"):
            problems.add(where, unknown_column(name, COLUMNS))
        if header.index(name) < position:
            problems.add(where, f"column {name!r} appears twice. Keep one.")
    for name in required:
        if name not in header:
            problems.add(
                where,
                f"column {name!r} is missing{_DEFAULTS.get(name, '')}. The first line must name the columns; "
                f"it says {', '.join(header)}.",
            )


def _numbers_rows(name: str) -> bool:
    """Whether a column is the index that pandas writes in front, under whatever name it is read again."""
    return re.fullmatch(r"index|level_0|Unnamed: 0(\.\d+)*", name) is not None


def _typed_cells(cells: dict[str, str], where: str, problems: Problems) -> dict[str, Any]:
    """Cells as values; empty ones are left out."""
    values = {}
    for name, cell in cells.items():
        if cell.strip():
            try:
                values[name] = COLUMNS[name](cell)
            except ValueError as error:
                problems.add(where, f"{name}: {cell!r} is {error}.")
    return values


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError("not a number (the decimal sign is a point: 0.5)") from None


def _integer(cell: str) -> int:
    number = _number(cell)  # spreadsheets write 2.0 for 2
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(cell) if re.fullmatch(r"\s*[+-]?\d+\s*", cell) else int(number)


def _boolean(cell: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
    if cell.strip().lower() not in words:
        raise ValueError("neither true nor false")
    return words[cell.strip().lower()]


def _json(cell: str) -> Any:
    """JSON, or a number as spreadsheets write it."""
    if not cell.lstrip().startswith(("[", "{")):
        return _number(cell)
    return _parsed(cell, 'a number, or for example [0.5, 2] or {"up": 0.5}')


def _entries(cell: str) -> Any:
    """JSON."""
    return _parsed(cell, 'for example [{"audio": "other.wav", "ap_scale": 0.3}]')


def _parsed(cell: str, wanted: str) -> Any:
    try:
        return json.loads(cell, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        raise ValueError(f"not JSON; write {wanted}") from None


def _readers() -> dict[str, Callable[[str], Any]]:
    """How the cells of each column are read, from the types of :class:`EditSettings`."""
    readers: dict[str, Callable[[str], Any]] = {"id": str.strip, "audio": str.strip, "output": str.strip, "prompt": str}
    hints = get_type_hints(EditSettings)
    for name in EditSettings.names():
        kinds = get_args(hints[name]) or (hints[name],)
        origins = {get_origin(kind) for kind in kinds}
        if origins & {list, dict, tuple}:
            readers[name] = _json if float in kinds or tuple in origins else _entries
        else:
            typed = {bool: _boolean, int: _integer, float: _number}
            text = str if name.endswith("prompt") else str.strip  # prompts are kept as they are written
            readers[name] = next((typed[kind] for kind in kinds if kind in typed), text)
    return readers | {column: _number for columns in EditSettings.pairs().values() for column in columns}


COLUMNS = _readers()


# --- JSONL ----------------------------------------------------------------------------------------------------------


def _jsonl_rows(path: Path, text: str, required: Collection[str], problems: Problems) -> Iterator[ManifestRow]:
    lines = re.split(r"\r\n?|\n", text)  # splitlines() would break at U+2028 inside a string
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=_distinct)
        except json.JSONDecodeError as error:
            problems.add(where, f"bad JSON ({error.msg} at character {error.colno}). Write one object per line.")
            continue
        except (ValueError, RecursionError) as error:
            problems.add(where, f"bad JSON ({error}).")
            continue
        if not isinstance(values, dict):
            problems.add(where, 'is not a JSON object. Write one per line: {"audio": "a.wav", "prompt": "..."}.')
            continue
        for name in values.keys() - set(COLUMNS):
            if not _numbers_rows(name):
                problems.add(where, unknown_column(name, COLUMNS))
        # NaN and null are what a table of pandas has where a value is absent.
        values = {name: _as_meant(name, one) for name, one in values.items() if one is not None and one == one}
        missing = [name for name in required if name not in values]
        for name in missing:
            problems.add(where, f"{name!r} is missing{_DEFAULTS.get(name, '')}.")
        if not missing:
            yield ManifestRow(where, {name: value for name, value in values.items() if name in COLUMNS})


def _as_meant(name: str, value: Any) -> Any:
    """Undo what pandas does to a column with gaps, whose numbers it makes floating-point: 2.0 for 2, 1.0 for true."""
    reader = COLUMNS.get(name)
    if reader is _boolean and value in (0, 1):
        return bool(value)
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and (reader is _integer or name == "id") else value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that names a key twice is refused, because Python would silently keep the last value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} appears twice")
    return values


def unknown_column(name: str, known: Collection[str]) -> str:
    """The message about an unknown column, with the most similar known one."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
    return f"unknown column {name!r}; {hint}"
