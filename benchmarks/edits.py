"""Time of an edit, compared with the earlier state, with diffusers' own pipeline and SDEdit, and in a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scale import Scale
from sound import write_folder
from timing import THIS, Result, Side, alternate, compare

#: The settings of an exact edit: the same on both sides, whatever their defaults.
PAPER = {"scheduler": "DDIMScheduler", "ap_scale": 0.5, "time_pooling": 2, "guidance_scale": 7.5}


def ask(scale: Scale) -> Iterator[Result]:
    """Each question in turn."""
    sides = [Side("ours", "jobs/edit.py"), Side("today", "jobs/edit.py", scale.today)]
    if scale.pairs == 1:
        sides = [Side(one.name, one.script, one.tree, {"knobs": {"num_inference_steps": 1}}) for one in sides]
    yield compare(
        "edit of 10.24 s, default settings", "10.24 s of sound", 6, "ours", "today", alternate(sides, scale.pairs)
    )
    yield exact(scale)
    yield folder(scale)
    yield against_pipeline(scale, "pipeline")
    yield against_pipeline(scale, "sdedit")


def exact(scale: Scale) -> Result:
    """The same solver and steps on both sides: only how they are computed may differ."""
    knobs = PAPER | {"num_inference_steps": scale.steps}
    files = {name: str(scale.work / f"exact-{name}.npy") for name in ("ours", "today")}
    sides = [
        Side(name, "jobs/edit.py", tree, {"knobs": knobs, "save": files[name]})
        for name, tree in (("ours", THIS), ("today", scale.today))
    ]
    runs = alternate(sides, scale.pairs)
    question = f"the same, exact mode ({scale.steps} steps)"
    return compare(question, "10.24 s of sound", 2.5, "ours", "today", runs, latent_error=difference(files))


def folder(scale: Scale) -> Result:
    """``predict`` from its start to its end."""
    songs = scale.work / f"songs-{scale.edits}"
    write_folder(songs, scale.edits, 10.0)
    command = ["-m", "apa_lightning", "predict", "--config", "configs/predict.yaml", "--data.folder", str(songs)]
    command += ["--data.prompt", "a recording of a violin solo", "--data.output", "{out}"]
    if scale.pairs == 1:
        command += ["--data.num_inference_steps", "1"]
    sides = [
        Side(name, "jobs/program.py", tree, {"arguments": command, "cwd": str(tree)})
        for name, tree in (("ours", THIS), ("today", scale.today))
    ]
    runs = alternate(sides, max(1, scale.pairs // 3), warm_up=0)
    return compare(f"folder of {scale.edits} edits of 10 s, predict", "all of the folder", 6, "ours", "today", runs)


def against_pipeline(scale: Scale, mode: str) -> Result:
    """A text-only edit of one window, both branches, DDIM; ``sdedit`` starts from the recording at strength 0.75."""
    knobs = PAPER | {"num_inference_steps": scale.steps, "ap_scale": 0}
    knobs |= {"strength": 0.75} if mode == "sdedit" else {}
    seconds = 5.12
    files = {name: str(scale.work / f"{mode}-{name}.npy") for name in ("ours", "diffusers")}
    ours = {"knobs": knobs, "seconds": seconds, "save": files["ours"]}
    theirs = {"mode": mode, "steps": scale.steps, "seconds": seconds, "save": files["diffusers"]}
    sides = [Side("ours", "jobs/edit.py", settings=ours)]
    sides += [Side("diffusers", "peers/diffusers_pipeline.py", scale.today, theirs)]
    runs = alternate(sides, scale.pairs)
    name = "exact edit against diffusers' pipeline call" if mode == "pipeline" else "SDEdit against a diffusers loop"
    return compare(name, f"{seconds} s of sound", 2, "ours", "diffusers", runs, latent_error=difference(files))


def difference(files: dict[str, str]) -> float:
    """Largest difference of the latents that both sides have saved."""
    one, two = (np.load(Path(path)) for path in files.values())
    return float(np.abs(one - two).max()) if one.shape == two.shape else float("nan")
