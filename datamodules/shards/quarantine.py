"""Report of skipped samples, counted by reason; it stops the run when too many are broken."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from apa_lightning.errors import InputError
from datamodules.shards.samples import Fault

MIN_SEEN = 50
"""The share of broken samples is judged from this many samples on, or at the end of an epoch."""


class QuarantineWarning(UserWarning):
    """Samples were skipped, or delivered with a remark."""


class Quarantine:
    """Collects faults of one split on one rank.

    Each (shard, key, reason) becomes one line of `quarantine-<split>.jsonl` (`-rank1` and so on are added under DDP)
    when it is first met; the first of each reason and a summary at the end of an epoch are warned of.

    Args:
        split: "train" or "validation", for messages.
        max_broken_share: Above this share of broken samples the run stops.
        folder: Where the report goes; None keeps it in memory only.
        rank: This process's rank.
    """

    def __init__(self, split: str, max_broken_share: float, folder: Path | None = None, rank: int = 0) -> None:
        self.split, self.max_broken_share = split, max_broken_share
        self.report = folder and folder / f"quarantine-{split}{f'-rank{rank}' if rank else ''}.jsonl"
        self._rank = rank
        self._reported: set[tuple[str, str, str]] | None = None
        self.faults: dict[tuple[str, str, str], Fault] = {}
        """Everything met so far, in its order."""
        self._located_share = 0.0
        self._seen = 0
        self._counts: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()

    def located(self, faults: Iterable[Fault], good: int) -> None:
        """Take the faults that were found while samples were located, before anything is read.

        All ranks find the same; the first one reports them.

        Raises:
            InputError: They alone pass the share, or no sample is left.
        """
        broken = sum(self._add(fault, report=self._rank == 0) for fault in faults)
        self._located_share = broken / max(1, broken + good)
        if good == 0 or self._located_share > self.max_broken_share:
            self._stop(f"{broken} of {broken + good}")

    def start_epoch(self) -> None:
        """Begin counting anew; an epoch that was left early is finished first. The report goes on."""
        if self._seen:
            self.finish_epoch()

    def note(self, faults: Iterable[Fault], seen: int) -> None:
        """Take the faults of `seen` samples, delivered or not.

        Raises:
            InputError: The share of broken samples is too large.
        """
        self._seen += seen
        for fault in faults:
            self._add(fault)
            (self._kept if fault.kept else self._counts)[fault.reason] += 1
        if self._seen >= MIN_SEEN:
            self._judge()

    def finish_epoch(self) -> None:
        """Judge an epoch shorter than `MIN_SEEN` too, and warn once of all that was skipped.

        Raises:
            InputError: The share of broken samples is too large.
        """
        self._judge()
        for counts, what in ((self._counts, "skipped"), (self._kept, "delivered with a remark")):
            if counts:
                listed = ", ".join(f"{number} x {reason}" for reason, number in counts.most_common())
                self._warn(f"{counts.total()} of {self._seen} {self.split} samples were {what}: {listed}.")
            counts.clear()
        self._seen = 0

    def _judge(self) -> None:
        broken = self._counts.total()
        share = 1 - (1 - self._located_share) * (1 - broken / max(1, self._seen))
        if share > self.max_broken_share:
            self._stop(f"{broken} of the {self._seen} that were read")

    def _stop(self, how_many: str) -> None:
        reasons = Counter(fault.reason for fault in self.faults.values() if not fault.kept)
        listed = ", ".join(f"{number} x {reason}" for reason, number in reasons.most_common(5)) or "no sample at all"
        first = next((f for f in self.faults.values() if not f.kept), None)
        example = f" First: '{first.key}' in '{first.shard}' ({first.detail or first.reason})." if first else ""
        raise InputError(
            f"too many broken {self.split} samples: {how_many}, and at most a share of {self.max_broken_share:g} is "
            f"allowed (`max_broken_share`). Reasons: {listed}.{example}{self.where()}"
        )

    def _add(self, fault: Fault, report: bool = True) -> bool:
        """Whether it takes a sample away."""
        identity = (fault.shard, fault.key, fault.reason)
        if identity not in self.faults:
            if report and all(reason != fault.reason for _, _, reason in self.faults):
                self._warn(f"{fault.reason}: '{fault.key}' in shard '{fault.shard}'. {fault.detail}".strip())
            self.faults[identity] = fault
            if report and self.report is not None:
                self._write(fault, identity, self.report)
        return not fault.kept

    def _write(self, fault: Fault, identity: tuple[str, str, str], report: Path) -> None:
        if self._reported is None:
            self._reported = _identities(report)
        if identity in self._reported:
            return
        self._reported.add(identity)
        report.parent.mkdir(parents=True, exist_ok=True)
        with open(report, "a", encoding="utf-8") as file:
            file.write(json.dumps({"split": self.split, **asdict(fault)}, ensure_ascii=False) + "\n")

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.split} data: {text}{self.where()}", QuarantineWarning, stacklevel=3)

    def where(self) -> str:
        """The end of a message: where the report lies."""
        return f" Report: '{self.report}'." if self.report else ""


def _identities(report: Path) -> set[tuple[str, str, str]]:
    """What an earlier run wrote into the same folder; a line that was cut short by its end is passed over."""
    found = set()
    for line in report.read_text(encoding="utf-8").splitlines() if report.is_file() else ():
        try:
            fault = json.loads(line)
            found.add((fault["shard"], fault["key"], fault["reason"]))
        except (ValueError, TypeError, KeyError):
            continue
    return found
