"""The protocol of both sides: a unit of work for each line that comes in, and a line of figures out."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def settings() -> dict[str, Any]:
    """The settings that the side was given."""
    return json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


def serve(unit: Callable[[], dict[str, Any] | None]) -> None:
    """Do ``unit`` for each line of the input and print its seconds, CPU seconds and peak memory, and what it returns."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    print("{}", file=answers)
    for _ in sys.stdin:
        cpu, start = _cpu(), clock()
        facts = unit() or {}
        figures = {"seconds": clock() - start, "cpu": _cpu() - cpu, "peak_gb": _peak()} | facts
        print(json.dumps(figures), file=answers)


def clock() -> float:
    """Seconds of the clock on the wall; where other work shares the cores (``run.py --cpu``), of the CPU."""
    return _cpu() if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter()


def device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
