"""The queue of the studio: edits of all browsers, one after the other on the one model, with progress and cancel."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.errors import InputError

log = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, CANCELED = "waiting", "running", "done", "failed", "canceled"


class Editor(Protocol):
    """What the queue needs of :class:`apa_lightning.AudioEditor`."""

    def edit(self, audio: EditRequest, *, progress: Callable[[int, int], object]) -> EditResult: ...


class Canceled(Exception):
    """Stops an edit."""


@dataclass
class Job:
    """The edits of one click.

    Attributes:
        owner: Whose they are.
        requests: The edits.
        keep: Called with each finished edit and its number.
        number: Its place among all jobs.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``canceled``.
        message: Why it failed.
        finished: Number of finished edits.
        share: Share of its steps that are done.
    """

    owner: str
    requests: Sequence[EditRequest]
    keep: Callable[[EditResult, int], Any]
    number: int = 0
    state: str = WAITING
    message: str = ""
    finished: int = 0
    share: float = 0.0
    started: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    future: Future | None = None

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def seconds_left(self) -> float | None:
        """Time until it is done, at its mean speed so far; None before the first step."""
        if self.state != RUNNING or not self.share:
            return None
        return (time.monotonic() - self.started) * (1 / self.share - 1)


class Jobs:
    """The queue.

    Args:
        editor: The one editor in memory.
        most: Jobs that may wait or run at once.
        most_per_owner: Those of one browser.
    """

    def __init__(self, editor: Editor, most: int = 20, most_per_owner: int = 2):
        self.editor, self.most, self.most_per_owner = editor, most, most_per_owner
        self._thread = ThreadPoolExecutor(1, "studio")
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            InputError: If too many are waiting.
        """
        with self._lock:
            last = {one.owner: one for one in self._jobs}
            self._jobs = [one for one in self._jobs if one.is_open or last[one.owner] is one][-1000:]
            waiting = [one for one in self._jobs if one.is_open]
            if sum(one.owner == job.owner for one in waiting) >= self.most_per_owner:
                raise InputError("Your earlier edits are not done yet; wait for them, or cancel them.")
            if len(waiting) >= self.most:
                raise InputError(f"{len(waiting)} edits of others are waiting; try again in a few minutes.")
            job.number = next(self._numbers)
            self._jobs.append(job)
            job.future = self._thread.submit(self._run, job)

    def of(self, owner: str) -> Job | None:
        """The job of a browser that runs or is next; where all are over, its last one."""
        own = [job for job in self._jobs if job.owner == owner]
        return next((job for job in own if job.is_open), own[-1] if own else None)

    def ahead(self, job: Job) -> int:
        """How many jobs are before this one."""
        return sum(one.is_open and one.number < job.number for one in self._jobs)

    def cancel(self, owner: str) -> None:
        """Stop the jobs of a browser; edits that are finished stay."""
        for job in self._jobs:
            if job.owner == owner and job.is_open:
                job.stop.set()
                if job.future is not None and job.future.cancel():
                    job.state = CANCELED

    def close(self) -> None:
        """Stop all jobs and wait for the thread."""
        for job in self._jobs:
            job.stop.set()
        self._thread.shutdown(cancel_futures=True)

    def _run(self, job: Job) -> None:
        job.state, job.started = RUNNING, time.monotonic()

        def stepped(done: int, total: int) -> None:
            if job.stop.is_set():
                raise Canceled
            job.share = (job.finished + done / max(total, 1)) / len(job.requests)

        try:
            for number, request in enumerate(job.requests):
                stepped(0, 1)
                job.keep(self.editor.edit(request, progress=stepped), number)
                job.finished = number + 1
            job.state = DONE
        except Canceled:
            job.state = CANCELED
        except (InputError, OSError) as error:
            job.message, job.state = str(error), FAILED
        except Exception:  # a bug, or a GPU without memory: the next job shall run
            log.exception("An edit of the studio failed.")
            job.message, job.state = "The edit failed; the terminal of the studio says why.", FAILED
