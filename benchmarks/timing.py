"""Paired timing: two programs that stand ready do the same work in turn, and the ratio is taken pair by pair.

A *side* is a program of ``jobs/`` or ``peers/`` in a process of its own, with the source tree that it imports: this one, or a
worktree of an earlier state. So both sides of a comparison run on the same machine within the same minute, and a drift of the
machine's speed cancels in the ratio.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
THIS = HERE.parent
CLOCK = "BENCH_CLOCK"
"""Environment variable of the programs' clock, see ``jobs/serve.py``."""


@dataclass
class Side:
    """One program of a comparison.

    Attributes:
        name: Shown in tables.
        script: Below ``benchmarks/``; it serves one unit of work per line that it reads (``jobs/serve.py``).
        tree: Source tree whose packages it imports.
        settings: Its arguments, as JSON.
        env: Environment variables in addition to the present ones; an empty value removes one.
    """

    name: str
    script: str
    tree: Path = THIS
    settings: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> "Running":
        """The started program, ready to work."""
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # after ours: libraries that are not installed
        paths = os.pathsep.join(map(str, filter(None, (self.tree, HERE, HERE / "jobs", *given))))
        env = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"} | self.env
        command = [sys.executable, str(HERE / self.script), json.dumps(self.settings)]
        env = {name: value for name, value in env.items() if value or name not in self.env}
        return Running(self.name, subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=env, cwd=self.tree))


class Running:
    """A started side."""

    def __init__(self, name: str, process: subprocess.Popen):
        self.name, self.process = name, process
        self.read()

    def ask(self) -> None:
        """Start a unit of work."""
        self.process.stdin.write("\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]

    def read(self) -> dict[str, Any]:
        """What the program says of the unit of work that it was asked for: ``seconds``, ``cpu`` and more."""
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"{self.name}: the program ended with {self.process.wait()}; its message is above.")
        return json.loads(line)

    def run(self) -> dict[str, Any]:
        """Do a unit of work."""
        self.ask()
        return self.read()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


@dataclass
class Result:
    """The answer to one question.

    Attributes:
        question: What was asked.
        unit: What was done in each run.
        target: Least (or, with ``at_most``, largest) value of the ratio.
        runs: What each side said of each run, by its name, in pairs.
        ratio: The figure: a median over the pairs.
        low: Smallest ratio of a pair.
        high: Largest.
        at_most: Whether the ratio is to stay below the target.
        facts: Further figures.
    """

    question: str
    unit: str
    target: float
    runs: dict[str, list[dict[str, Any]]]
    ratio: float
    low: float
    high: float
    at_most: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target


def alternate(sides: Sequence[Side], count: int, warm_up: int = 1) -> dict[str, list[dict[str, Any]]]:
    """Run all sides ``count`` times in turn; each turn changes the order."""
    with ExitStack() as stack:
        running = [stack.enter_context(side.start()) for side in sides]
        for one in running * warm_up:
            one.run()
        runs: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for number in range(count):
            for one in running if number % 2 == 0 else running[::-1]:
                runs[one.name].append(one.run())
    return runs


def compare(
    question: str,
    unit: str,
    target: float,
    ours: str,
    other: str,
    runs: dict[str, list[dict[str, Any]]],
    key: str = "seconds",
    at_most: bool = False,
    **facts: Any,
) -> Result:
    """The ratio ``other / ours`` of a figure (with ``at_most``: ``ours / other``), as a result."""
    pairs = [(one[key], two[key]) for one, two in zip(runs[ours], runs[other], strict=True)]
    ratios = [mine / theirs if at_most else theirs / mine for mine, theirs in pairs]
    return Result(question, unit, target, runs, median(ratios), min(ratios), max(ratios), at_most, facts)
