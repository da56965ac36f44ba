"""Slow-down of an edit and of a training run by a second busy process on the same cores. Two: each has half of them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from scale import Scale
from timing import CLOCK, THIS, Result, Side
from training import UNVALIDATED, fit


def ask(scale: Scale) -> Iterator[Result]:
    """Of an edit and of ``fit``, each beside another one of its kind."""
    knobs = {"num_inference_steps": max(2, scale.steps // 5)}
    yield slow_down("edit", Side("edit", "jobs/edit.py", THIS, {"knobs": knobs, "seconds": 5.12}), scale.pairs)
    yield slow_down("fit", fit("fit", THIS, max(1, scale.train_steps // 2), *UNVALIDATED), scale.pairs)


def slow_down(name: str, side: Side, count: int) -> Result:
    """Times the work alone and beside a second process that does the same, in turn."""
    alone, beside = [], []
    side = replace(side, env={CLOCK: ""})  # seconds of the CPU say nothing about waiting
    with ExitStack() as stack:
        one, two = (stack.enter_context(side.start()) for _ in range(2))
        one.run()
        two.run()
        for _ in range(count):
            alone.append(one.run())
            one.ask()
            two.ask()
            both = one.read(), two.read()
            beside.append({key: (both[0][key] + both[1][key]) / 2 for key in ("seconds", "cpu")})
    ratios = [pair["seconds"] / single["seconds"] for single, pair in zip(alone, beside, strict=True)]
    runs = {"alone": alone, "beside another": beside}
    question = f"{name} beside a second busy process"
    return Result(question, "the same work", 2.5, runs, median(ratios), min(ratios), max(ratios), at_most=True)
