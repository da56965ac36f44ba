"""Parts of the `shards` command in one folder: each is a run with its own report; the last one to finish merges them."""

import glob
import json
import re
from pathlib import Path
from typing import Any

from apa_lightning.edit_jobs.parts import Part, missing_parts
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from datamodules.prepare.shard_run import ShardRun
from datamodules.shards.index import index_path


def run_name(name: str, part: Part | None) -> str:
    """First part of the shards' names of a part, such as `train-03of16`; they sort as the parts do."""
    return f"{name}-{part.number:0{len(str(part.of))}}of{part.of}" if part else name


def refuse_other_runs(out: Path, name: str, part: Part | None, overwrite: bool) -> None:
    """Refuse to write clips that shards in the folder hold already: of the whole, or of another number of parts.

    Args:
        out: Folder of the shards.
        name: First part of the shards' names.
        part: The part to be written; None: the whole.
        overwrite: Remove such shards instead.

    Raises:
        InputError: If there are such shards.
    """
    merged = _read(out / f"{name}-report.json").get("parts", 1)
    if merged > 1 and part is None and not overwrite:
        return  # all parts are complete, and with them the whole
    for report in sorted(out.glob(f"{glob.escape(name)}-*report.json")):
        found = re.fullmatch(re.escape(name) + r"(?:-\d+of(\d+))?-report\.json", report.name)
        parts = found and int(found[1] or merged)
        if not parts or parts == (part.of if part else 1) or not _read(report).get("shards"):
            continue
        if not overwrite:
            what = f"parts of {parts}: give --part N/{parts}" if parts > 1 else "shards that were made without --part"
            raise InputError(
                f"--out: '{out}' holds {what}. Continue with those, choose another --out or --name, or set "
                "--overwrite=true, which removes them."
            )
        other = report.name.removesuffix("-report.json")
        for shard in out.glob(f"{glob.escape(other)}-*.tar"):
            if shard.stem.removeprefix(f"{other}-").isdecimal():
                index_path(shard).unlink(missing_ok=True)
                shard.unlink(missing_ok=True)
        report.with_suffix(".csv").unlink(missing_ok=True)
        report.unlink(missing_ok=True)


def refuse_other_settings(out: Path, name: str, part: Part, settings: dict[str, object]) -> None:
    """Refuse to write a part whose neighbors were made with other settings: together they would not be one data set.

    Raises:
        InputError: If there is such a part.
    """
    for one in part.others():
        made_with = _read(out / f"{run_name(name, one)}-report.json").get("settings", settings)
        if changed := [key for key in settings if made_with.get(key) != settings[key]]:
            raise InputError(
                f"--part: part {one} in '{out}' was made with another {', '.join(changed)}. Give the same settings, or set "
                "--overwrite=true for each part."
            )


def merge_reports(out: Path, name: str, part: Part, settings: dict[str, object]) -> ShardRun | None:
    """Write the report of all parts if all are finished with these settings; otherwise print which are not, and return None."""
    states = {one: _read(out / f"{run_name(name, one)}-report.json") for one in sorted([part, *part.others()])}
    missing = [one for one, state in states.items() if not state.get("complete") or state.get("settings") != settings]
    if missing:
        print(missing_parts(missing))
        return None
    with file_lock(out / f"{name}.lock"):
        whole = ShardRun(out, name, settings, overwrite=True)
        whole.merge(states.values())
    print(f"All {part.of} parts are finished. Their reports are merged in '{whole.path('json')}':")
    return whole


def _read(report: Path) -> dict[str, Any]:
    """The content of a report; empty if there is none that can be read."""
    try:
        state = json.loads(report.read_bytes())
        return state if isinstance(state, dict) else {}
    except (OSError, ValueError):
        return {}
