"""Sample-exact resume: a fit that is ended anywhere and continued equals one that was left alone, bit for bit."""

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from diary import in_a_write, on_event
from observed_fit import Fit, bomb, check_continued, undisturbed

NAME = "Sample-exact resume"
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
ACCUMULATED = ("--trainer.accumulate_grad_batches=4", "--trainer.max_steps=15")
#: name: (more arguments, what to do in the process before the command).
NAMED: dict[str, tuple[list[str], Callable[[], object]]] = {
    "last.ckpt half written": ([], partial(in_a_write, ".tmp.ckpt", 6, 20_000)),
    "last.ckpt written, not renamed": ([], partial(on_event, "os.rename", "last.ckpt", 3, KILL)),
    "best checkpoint written, not renamed": ([], partial(on_event, "os.rename", "step=15.ckpt", 1, KILL)),
    "best checkpoint about to be pruned": ([], partial(on_event, "os.remove", "step=5.ckpt", 1, KILL)),
    "adapter.safetensors not renamed": ([], partial(on_event, "os.rename", "adapter.safetensors", 2, KILL)),
    "in a validation": (bomb("on_validation_batch_end", 20, int(KILL)), lambda: None),
    "asked to stop in a validation": (bomb("on_validation_batch_start", 20, int(TERM)), lambda: None),
    "first batch of an epoch": (bomb("on_train_batch_start", 11, int(KILL)), lambda: None),
    "last batch of an epoch": (bomb("on_train_batch_end", 22, int(KILL)), lambda: None),
    "between gradients and weights": (bomb("on_before_optimizer_step", 17, int(KILL)), lambda: None),
    "asked to stop between gradients and weights": (bomb("on_before_optimizer_step", 17, int(TERM)), lambda: None),
    "asked to stop in the last batch of an epoch": (bomb("on_train_batch_end", 22, int(INT)), lambda: None),
    "asked to stop where a validation is due": (bomb("on_train_batch_end", 25, int(TERM)), lambda: None),
    "while gradients accumulate": (bomb("on_before_zero_grad", 7, int(KILL)), lambda: None),
    "asked to stop while gradients accumulate": (bomb("on_before_zero_grad", 7, int(TERM)), lambda: None),
    "asked to stop in a validation while gradients accumulate": (
        bomb("on_validation_batch_start", 8, int(TERM)),
        lambda: None,
    ),
    "exception in a step": (bomb("on_before_zero_grad", 24, "exception"), lambda: None),
    "asked to stop in a validation of the last epoch": (
        bomb("on_validation_batch_start", 25, int(TERM)),
        lambda: None,
    ),
    "asked to stop in the last validation": (bomb("on_validation_batch_start", 30, int(TERM)), lambda: None),
}
FAST = ("asked to stop in a validation",)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMED]
)
def test_ended_at_a_named_moment(name: str, workers: int, tmp_path: Path, promise) -> None:
    arguments, before = NAMED[name]
    fit = Fit(workers, settings=ACCUMULATED if "accumulate" in name else ())
    run = fit.start(tmp_path, *arguments, before=before)
    ended = run.wait() != 0 or "last validation" in name  # there it finishes: nothing would be left to continue
    difference = check_continued(fit, tmp_path, saved="asked" in name) if ended else f"it was not ended: {run.output}"
    promise(NAME, not difference, 1, "named moments")
    assert not difference


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", range(40))
def test_ended_at_a_random_moment(number: int, workers: int, tmp_path: Path, promise) -> None:
    """Moments from the first second to the last, by kill -9 mostly."""
    draw = random.Random(f"{number} {workers}")
    fit = Fit(workers)
    _, seconds = undisturbed(fit)
    how = draw.choice([KILL, KILL, TERM, INT])
    run = fit.start(tmp_path)
    time.sleep(draw.uniform(0.1, 1.0) * seconds)
    run.kill(how)
    code = run.wait()
    difference = check_continued(fit, tmp_path, saved=False)
    promise(NAME, not difference, 1, "random moments")
    assert not difference, f"{how!r} ended with {code}"
