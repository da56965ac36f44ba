"""Progress of long work: a bar on a terminal or in a notebook, else a line every half minute."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import auto, tqdm

#: Seconds between two lines, and before the first one: work that is done sooner prints nothing.
INTERVAL = 30.0


def progress(work: Iterable[Any] | int | None, desc: str, unit: str, initial: int = 0, shown: bool = True) -> tqdm:
    """Report the progress of long work on standard error.

    For items: ``for clip in progress(clips, "encoding", "clip")``.
    With a number of units in place of the items, the caller counts:
    ``with progress(len(clips), "encoding", "clip") as bar: bar.update()``.

    Args:
        work: The items to go through, or how many units there are; None where their number is not known.
        desc: Name of the work, for example "encoding".
        unit: Name of one unit, for example "clip".
        initial: Units that an earlier run has done.
        shown: Whether to report at all; False in processes other than the first one.

    Returns:
        A tqdm bar, which is also a context manager.
    """
    terminal = sys.stderr.isatty() or "ipykernel" in sys.modules
    kind = auto.tqdm if terminal else _Lines
    items, total = (None, work) if isinstance(work, int) else (work, None)
    return kind(items, total=total, desc=desc, unit=unit, initial=initial, disable=not shown, dynamic_ncols=terminal)


class _Lines(tqdm):
    """tqdm for log files: plain lines with what is done, the total, and the time left at the mean speed so far."""

    def __init__(self, *args: Any, **kwargs: Any):
        # gui=True: tqdm prints nothing itself, not even a line break at the end.
        super().__init__(
            *args, **kwargs, mininterval=INTERVAL, maxinterval=INTERVAL, miniters=1, delay=INTERVAL, gui=True
        )

    def display(self, *_: Any, **__: Any) -> None:
        """Print one line."""
        state = self.format_dict
        done, total, elapsed = state["n"], state["total"], state["elapsed"]
        units = state["unit"] + ("es" if state["unit"].endswith("ch") else "s")
        line = f"{state['prefix']}: {done} of {total or '?'} {units}, {self.format_interval(elapsed)} elapsed"
        made = done - state["initial"]
        if total and made:
            line += f", {self.format_interval((total - done) * elapsed / made)} left"
        if state["postfix"]:
            line += f", {state['postfix']}"
        print(line, file=self.fp, flush=True)

    def close(self) -> None:
        """Print the last count, if lines were printed before."""
        if not self.disable and self.last_print_t >= self.start_t + self.delay and self.n > self.last_print_n:
            self.display()
        super().close()
