"""Report of skipped samples, counted by reason; it stops the run when too many are broken."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from apa_lightning.errors import InputError
from datamodules.shards.samples import Fault

MIN_SEEN = 50
"""The share of broken samples is checked after this many samples, or at the end of an epoch."""


class QuarantineWarning(UserWarning):
    """Samples were skipped, or delivered with a remark."""


class Quarantine:
    """Collects the faults of one split on one rank.

    Each (shard, key, reason) becomes one line of `quarantine-<split>.jsonl` (under DDP with `-rank1` and so on) when it
    is first found. The first of each reason and a summary at the end of an epoch are given as warnings.

    Args:
        split: "train" or "validation", for messages.
        max_broken_share: Above this share of broken samples the run stops.
        folder: Folder of the report; None keeps it in memory only.
        rank: Rank of this process.
    """

    def __init__(self, split: str, max_broken_share: float, folder: Path | None = None, rank: int = 0) -> None:
        self.split, self.max_broken_share = split, max_broken_share
        self.report = folder and folder / f"quarantine-{split}{f'-rank{rank}' if rank else ''}.jsonl"
        self._rank = rank
        self._reported: set[tuple[str, str, str]] | None = None
        self.faults: dict[tuple[str, str, str], Fault] = {}
        """Everything found so far, in its order."""
        self._located_share = 0.0
        self._seen = 0
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()

    def located(self, faults: Iterable[Fault], good: int) -> None:
        """Add the faults that were found while samples were located, before anything is read.

        All ranks find the same faults, and the first rank reports them.

        Raises:
            InputError: If they alone exceed the share, or no sample is left.
        """
        broken = 0
        for fault in faults:
            self._add(fault, report=self._rank == 0)
            broken += not fault.kept
        self._located_share = broken / max(1, broken + good)
        if good == 0 or self._located_share > self.max_broken_share:
            self._stop(f"{broken} of {broken + good}")

    def start_epoch(self) -> None:
        """Reset the counts; an epoch that was left early is finished first. The report is continued."""
        if self._seen:
            self.finish_epoch()

    def note(self, faults: Iterable[Fault], seen: int) -> None:
        """Add the faults of `seen` samples, delivered or not.

        Raises:
            InputError: If the share of broken samples is too large.
        """
        self._seen += seen
        for fault in faults:
            self._add(fault)
            (self._kept if fault.kept else self._counts)[fault.reason] += 1
        if self._seen >= MIN_SEEN:
            self._check_share()

    def finish_epoch(self) -> None:
        """Check the share also of an epoch shorter than `MIN_SEEN`, and warn once of all that was skipped.

        Raises:
            InputError: If the share of broken samples is too large.
        """
        self._check_share()
        for counts, what in ((self._counts, "skipped"), (self._kept, "delivered with a remark")):
            if counts:
                self._warn(f"{counts.total()} of {self._seen} {self.split} samples were {what}: {_list(counts)}.")
            counts.clear()
        self._seen = 0

    def _check_share(self) -> None:
        broken = self._counts.total()
        share = 1 - (1 - self._located_share) * (1 - broken / max(1, self._seen))
        if share > self.max_broken_share:
            self._stop(f"{broken} of the {self._seen} that were read")

    def _stop(self, how_many: str) -> None:
        broken = [fault for fault in self.faults.values() if not fault.kept]
        listed = _list(Counter(fault.reason for fault in broken)) or "no sample at all"
        example = "".join(f" First: '{f.key}' in '{f.shard}' ({f.detail or f.reason})." for f in broken[:1])
        raise InputError(
            f"too many broken {self.split} samples: {how_many}, and at most a share of {self.max_broken_share:g} is "
            f"allowed (`max_broken_share`). Reasons: {listed}.{example}{self.where()}"
        )

    def _add(self, fault: Fault, report: bool = True) -> None:
        identity = (fault.shard, fault.key, fault.reason)
        if identity in self.faults:
            return
        if report and all(reason != fault.reason for _, _, reason in self.faults):
            self._warn(f"{fault.reason}: '{fault.key}' in shard '{fault.shard}'. {fault.detail}".strip())
        self.faults[identity] = fault
        if not report or self.report is None:
            return
        if self._reported is None:
            self._reported = _identities(self.report)
        if identity not in self._reported:
            self._reported.add(identity)
            self.report.parent.mkdir(parents=True, exist_ok=True)
            with open(self.report, "a", encoding="utf-8") as file:
                file.write(json.dumps({"split": self.split, **asdict(fault)}, ensure_ascii=False) + "\n")

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.split} data: {text}{self.where()}", QuarantineWarning, stacklevel=3)

    def where(self) -> str:
        """The end of a message that names the report."""
        return f" Report: '{self.report}'." if self.report else ""


def _identities(report: Path) -> set[tuple[str, str, str]]:
    """Read what an earlier run reported in the same folder; a line that was cut off is skipped."""
    found = set()
    for line in report.read_text(encoding="utf-8").splitlines() if report.is_file() else ():
        with suppress(ValueError, TypeError, KeyError):
            fault = json.loads(line)
            found.add((fault["shard"], fault["key"], fault["reason"]))
    return found


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{number} x {reason}" for reason, number in counts.most_common())
