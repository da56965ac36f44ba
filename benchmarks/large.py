"""The questions about AudioLDM2-large: its architecture at full width with random weights, batch 1. Minutes on a CPU."""

import subprocess
import sys
from collections.abc import Iterator

from scale import Scale
from sound import write_shards
from timing import THIS, Result, Side, alternate, compare
from training import UNVALIDATED, fit


def ask(scale: Scale) -> Iterator[Result]:
    """Each question in turn."""
    folder = scale.large
    if folder is None:
        return
    if not folder.exists():
        command = [sys.executable, "-m", "apa_lightning", "sizes", "--write", str(folder)]
        subprocess.run(command, check=True, cwd=scale.today, env=None)
    parts = ["--model.backbone", str(folder), "--model.audio_encoder", str(folder / "audio_encoder")]
    steps = max(2, scale.train_steps // 6)
    shards = write_shards(scale.work / f"shards-large-{steps}", steps, 10.24)  # a cache of more clips would take hours
    settings = [*parts, "--data.train_shards", str(shards[0]), "--data.batch_size", "1", *UNVALIDATED]
    cached = ["--config", "configs/data/encoded.yaml", "--data.cache", str(scale.work / "encoded-large")]
    sides = [fit("cached", THIS, steps, *cached, *settings), fit("today", scale.today, steps, *settings)]
    # The process that fills the cache has held the encoders: a second process shows the memory of a cached run.
    alternate(sides[:1], 0)
    runs = alternate(sides, max(1, scale.pairs // 3), warm_up=1)
    unit = "a training step of one clip"
    yield compare(
        "training at AudioLDM2-large's widths, cached, against today", unit, 1.5, "cached", "today", runs, "step"
    )
    yield compare("the same, peak memory", unit, 0.6, "cached", "today", runs, "peak_gb", at_most=True)
    knobs = {"scheduler": "DDIMScheduler", "num_inference_steps": 2}
    edits = [
        Side(name, "jobs/edit.py", tree, {"folder": str(folder), "knobs": knobs})
        for name, tree in (("ours", THIS), ("today", scale.today))
    ]
    runs = alternate(edits, max(1, scale.pairs // 3), warm_up=0)
    yield compare("exact edit at AudioLDM2-large's widths, 2 steps", "10.24 s of sound", 1, "ours", "today", runs)
