"""Processes that work for one that may be killed."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Called in a worker process: it ends when its parent has ended, however. A pool's workers would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
