"""Work in several processes, with the results in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from apa_lightning.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 8  # tasks per worker that are started before their results are taken


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """Yield the result of `work` for each task, in the order of the tasks; only a few results wait at any time.

    Args:
        work: Function of a module, so that it can be sent to other processes.
        tasks: Its arguments, which can be sent too.
        workers: Number of processes; 0 works in this one.

    Raises:
        InputError: If a worker process was killed.
    """
    if workers == 0:
        yield from map(work, tasks)
        return
    # Not forked: a fork of a process whose libraries have started threads can hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    tasks = iter(tasks)
    try:
        waiting: deque[Future] = deque(pool.submit(work, task) for task in islice(tasks, _AHEAD * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, task) for task in islice(tasks, 1))
    except BrokenProcessPool:
        raise InputError(
            f"workers: {workers}; a worker process was killed, most likely for lack of memory. Finished shards are kept: "
            "run the same command again with fewer."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Use one thread, leave Ctrl-C to the parent process, and end when the parent has ended in whatever way."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:  # otherwise a pool's workers wait for work forever
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
