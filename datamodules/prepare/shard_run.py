"""Progress of the `shards` command in a folder, so that it can resume after an interruption."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import remove_leftovers, write_file
from datamodules.prepare.clip_names import count_suffixes
from datamodules.shards.index import index_path


@dataclass(frozen=True)
class Problem:
    """A segment that was not written.

    `status` is missing, convert (its file has another format), unknown (none of its labels is), short or broken.
    """

    key: str
    file: str
    status: str
    detail: str


class ShardRun:
    """What has been done in a folder; kept in `<name>-report.json`, which is replaced at each finished shard.

    Args:
        out: Folder of the shards.
        name: First part of the shards' names.
        settings: Settings that must be equal for the shards to belong to one run.
        overwrite: Start again instead of resuming.

    Raises:
        InputError: If the folder holds shards of a run with other settings, or its report or shards are damaged.
    """

    def __init__(self, out: Path, name: str, settings: dict[str, object], overwrite: bool) -> None:
        self.out, self.name, self._settings = out, name, settings
        self.next = self.shards = self.samples = self.prompts = self.bytes = 0
        """Number of segments that are done, and what was made of them."""
        self.problems: list[Problem] = []
        self.complete = False
        self.parts = 1
        for extension in ("json", "csv"):
            remove_leftovers(self.path(extension))
        if self.path("json").is_file() and not overwrite:
            self._resume(self.path("json"))
        elif not overwrite and index_path(self.shard(0)).exists():
            raise InputError(f"'{self.shard(0)}' exists and no report says how it was made. Choose another --out.")

    def _resume(self, report: Path) -> None:
        settings = self._settings
        try:
            saved = json.loads(report.read_bytes())
            if saved["shards"] == 0:
                return
            changed = [key for key in settings if saved["settings"].get(key) != settings[key]]
            self.next, self.shards, self.samples, self.bytes, self.complete = (
                saved[field] for field in ("next", "shards", "samples", "bytes", "complete")
            )
            self.prompts = saved.get("prompts", 0)  # reports from before there were any lack it
            self.parts = saved.get("parts", 1)
            self.problems = [Problem(**problem) for problem in saved["problems"]]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"'{report}' is damaged ({error}). Choose another --out, or set --overwrite=true."
            ) from None
        if changed:
            raise InputError(
                f"'{self.out}' holds shards that were made with another {', '.join(changed)}. Choose another --out or "
                "--name, or set --overwrite=true."
            )
        for shard in map(self.shard, range(self.shards if self.parts == 1 else 0)):
            if not index_path(shard).is_file():
                raise InputError(f"'{shard}' was made and is gone or has no index. Set --overwrite=true.")

    def path(self, extension: str) -> Path:
        """Path of the report, as json or csv."""
        return self.out / f"{self.name}-report.{extension}"

    def shard(self, number: int) -> Path:
        """Path of a shard."""
        return self.out / f"{self.name}-{number:06d}.tar"

    def advance(self, next: int, samples: int, prompts: int, problems: list[Problem], *shards: Path) -> None:
        """Record that everything before segment `next` is in finished shards, of which these are new."""
        self.next, self.samples, self.prompts, self.problems = next, samples, prompts, list(problems)
        self.shards += len(shards)
        self.bytes += sum(shard.stat().st_size for shard in shards)
        self.save()

    def merge(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Take the reports of the parts of this run together; their shards keep the names of the parts."""
        states = list(states)
        for field in ("next", "shards", "samples", "prompts", "bytes"):
            setattr(self, field, sum(state[field] for state in states))
        self.problems = [Problem(**problem) for state in states for problem in state["problems"]]
        self.parts = len(states)
        self.finish()

    def save(self, complete: bool = False) -> None:
        """Write the report."""
        self.complete = complete
        state = {
            **{field: getattr(self, field) for field in ("complete", "next", "shards", "samples", "prompts", "bytes")},
            **({"parts": self.parts} if self.parts > 1 else {}),
            "counts": self.counts(),
            "settings": self._settings,
            "problems": [asdict(problem) for problem in self.problems],
        }
        write_file(self.path("json"), json.dumps(state, ensure_ascii=False, indent=1))

    def finish(self) -> None:
        """Write the table of problems, remove shards of a longer run before, and mark the run complete."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ("key", "status", "file", "detail"))
        writer.writeheader()
        writer.writerows(asdict(problem) for problem in self.problems)
        write_file(self.path("csv"), text.getvalue())
        number = self.shards
        while self.shard(number).exists():
            index_path(self.shard(number)).unlink(missing_ok=True)
            self.shard(number).unlink()
            number += 1
        self.save(complete=True)

    def counts(self) -> dict[str, int]:
        """Number of clips by status."""
        found = Counter(problem.status for problem in self.problems)
        return {
            "written": self.samples,
            **{status: found[status] for status in ("missing", "convert", "unknown", "short", "broken")},
        }

    def print_report(self) -> None:
        """Print the table of counts."""
        for status, count in self.counts().items():
            extra = f"  in {self.shards} shards, {self.bytes / 1e6:,.1f} MB" if status == "written" else ""
            if status == "written" and self.prompts:
                extra += f", {self.prompts:,} with an audio prompt"
            if status == "convert" and count:
                formats = count_suffixes(problem.file for problem in self.problems if problem.status == status)
                extra = f"  there in another format ({formats}): convert them, then set --overwrite=true"
            print(f"{status:>8}  {count:>9,}{extra}")
        if self.problems:
            print(f"Clips that were not written are named in '{self.path('csv')}'.")
