"""Speed of training, compared with the earlier state, the published loop and a bare loop; and the share of validation in it."""

from collections.abc import Iterator
from typing import Any

from scale import Scale
from sound import write_folder
from timing import THIS, Result, Side, alternate, compare

BATCH = 8
BASE = ["--config", "configs/base.yaml", "--initial_validation", "false", "--trainer.enable_progress_bar", "false"]
BASE += ["--trainer.enable_model_summary", "false"]
UNVALIDATED = ["--data.validation_shards", "null", "--trainer.callbacks", "null", "--trainer.logger", "false"]


def fit(name: str, tree: Any, steps: int, *more: str) -> Side:
    """A run of ``fit`` with a clock in it."""
    arguments = [*BASE, "--trainer.max_steps", str(steps), "--data.batch_size", str(BATCH), *more]
    return Side(name, "jobs/fit.py", tree, {"arguments": arguments})


def ask(scale: Scale) -> Iterator[Result]:
    """Each question in turn."""
    steps, cache = scale.train_steps, str(scale.work / "encoded")
    cached = ["--config", "configs/data/encoded.yaml", "--data.cache", cache]
    clips = scale.work / "clips"
    write_folder(clips, 2 * BATCH, 5.12)
    # The first run fills the cache, which is not what is asked for.
    runs = alternate(
        [
            fit("cached", THIS, steps, *cached, *UNVALIDATED),
            fit("uncached", THIS, steps, *UNVALIDATED),
            fit("today", scale.today, steps, *UNVALIDATED),
            Side(
                "published", "peers/published_loop.py", THIS, {"clips": str(clips), "steps": steps, "batch_size": BATCH}
            ),
            Side("bare", "peers/bare_loop.py", THIS, {"steps": steps, "batch_size": BATCH, "workers": 1}),
        ],
        scale.pairs,
    )
    unit = "a training step of 8 clips"
    yield compare("training, cached, against today", unit, 1.7, "cached", "today", runs, "step")
    yield compare("training, cached, against the published loop", unit, 8, "cached", "published", runs, "step")
    yield compare("Trainer over a bare loop", unit, 1.05, "uncached", "bare", runs, "step", at_most=True)
    yield from validation(scale)


def validation(scale: Scale) -> Iterator[Result]:
    """Losses and edits of a validation of base.yaml, inside of fit: of the later ones of a run, and of its first one."""
    steps, more = min(3, scale.pairs), ["--trainer.val_check_interval", "1"]
    if scale.pairs == 1:
        more += ["--data.validation_samples", "2", "--config", "tests/small.yaml", "--data.batch_size", "2"]
    sides = [fit("ours", THIS, steps, *more), fit("today", scale.today, steps, *more)]
    runs = alternate(sides, max(1, scale.pairs // 3), warm_up=0)
    question = "validation inside fit (losses and edits)"
    yield compare(question, "a validation", 4, "ours", "today", runs, "validation")
    yield compare(f"{question}, the first of a run", "a validation", 4, "ours", "today", runs, "first_validation")
