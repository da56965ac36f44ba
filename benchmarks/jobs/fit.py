"""A short training run by the command line's own program, with a clock in it.

``arguments`` are those of ``fit``; the answer holds the seconds of a training step and of a validation.
"""

import apa_lightning  # noqa: F401  before torch, as on the command line: it sets the spins of torch's threads

# isort: split
import sys
import tempfile
from functools import wraps
from statistics import median
from typing import Any

from lightning.pytorch import Callback, Trainer
from serve import clock, serve, settings

from apa_lightning.cli.main import main

given = settings()
del sys.argv[1:]  # LightningCLI warns of arguments in two places


class Clock(Callback):
    """Times training steps from the end of one batch to the end of the next one, so with loading, and validations."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validations: list[float] = []
        self.clips = 0
        self._mark: float | None = None
        self._start = 0.0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        now = clock()
        if self._mark is not None:
            self.steps.append(now - self._mark)
        self._mark, self.clips = now, len(batch["prompt"])

    def on_validation_start(self, *_: Any) -> None:
        self._start = clock()
        self._mark = None

    def on_validation_end(self, *_: Any) -> None:
        self.validations.append(clock() - self._start)


def unit() -> dict[str, Any]:
    timer, fit = Clock(), Trainer.fit

    @wraps(fit)
    def with_clock(self: Trainer, *args: Any, **kwargs: Any) -> None:
        self.callbacks.append(timer)  # type: ignore[attr-defined]  # the last one: its validation ends after the edits
        fit(self, *args, **kwargs)

    Trainer.fit = with_clock  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as runs:
            main(["fit", *given["arguments"], "--trainer.default_root_dir", runs])
    finally:
        Trainer.fit = fit  # type: ignore[method-assign]
    facts: dict[str, Any] = {"validations": timer.validations}
    if timer.steps:
        skipped = len(timer.steps) // 2  # the first steps fill caches and are measured by fit itself
        facts |= {
            "step": median(timer.steps[skipped:]),
            "clips_per_second": timer.clips / median(timer.steps[skipped:]),
        }
    if timer.validations:
        first, *later = timer.validations
        facts |= {"first_validation": first, "validation": median(later or [first])}
    return facts


serve(unit)
