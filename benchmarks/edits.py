"""Time of an edit, compared with the earlier state, with diffusers' own pipeline and SDEdit, and in a folder.

Where OpenVINO is installed, each question is also asked without it.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scale import Scale
from sound import write_folder
from timing import THIS, Result, Side, alternate, compare

#: The settings of an exact edit: the same on both sides, whatever their defaults.
PAPER = {"scheduler": "DDIMScheduler", "ap_scale": 0.5, "time_pooling": 2, "guidance_scale": 7.5}
#: Both sides of a comparison of latents have the weights of this tree.
WEIGHTS = THIS / "apa_lightning" / "pocket" / "weights"
SAME = {"folder": str(WEIGHTS), "adapter": str(WEIGHTS / "adapter.safetensors")}
#: Our sides: what computes the U-Net, and whether OpenVINO may.
OURS = {"torch alone": "0"} | ({"OpenVINO": "1"} if find_spec("openvino") else {})


def ask(scale: Scale) -> Iterator[Result]:
    """Each question in turn."""
    few = {"knobs": {"num_inference_steps": 1}} if scale.pairs == 1 else {}
    today = Side("today", "jobs/edit.py", scale.today, few)
    yield from against("edit of 10.24 s, default settings", 6, "jobs/edit.py", few, today, scale.pairs)
    yield from exact(scale)
    yield from folder(scale)
    yield from against_pipeline(scale, "pipeline")
    yield from against_pipeline(scale, "sdedit")


def against(
    question: str, target: float, script: str, settings: dict[str, Any], other: Side, pairs: int, warm_up: int = 1
) -> Iterator[Result]:
    """Our sides compared with another one, with the difference of the latents where they are saved."""
    sides = []
    for name, switch in OURS.items():
        saved = {"save": f"{settings['save']}-{name}.npy"} if "save" in settings else {}
        sides.append(Side(name, script, THIS, settings | saved, {"APA_LIGHTNING_OPENVINO": switch}))
    runs = alternate([*sides, other], pairs, warm_up)
    for side in sides:
        facts = {"latent_error": difference(side, other)} if "save" in settings else {}
        yield compare(f"{question} ({side.name})", "the same work", target, side.name, other.name, runs, **facts)


def exact(scale: Scale) -> Iterator[Result]:
    """The same solver and steps on both sides: only how they are computed may differ."""
    settings = SAME | {"knobs": PAPER | {"num_inference_steps": scale.steps}, "save": str(scale.work / "exact")}
    today = Side("today", "jobs/edit.py", scale.today, settings | {"save": f"{settings['save']}-today.npy"})
    question = f"the same, exact mode, {scale.steps} steps"
    yield from against(question, 2.5, "jobs/edit.py", settings, today, scale.pairs)


def folder(scale: Scale) -> Iterator[Result]:
    """``predict`` from its start to its end."""
    songs = scale.work / f"songs-{scale.edits}"
    write_folder(songs, scale.edits, 10.0)
    command = ["-m", "apa_lightning", "predict", "--config", "configs/predict.yaml", "--data.folder", str(songs)]
    command += ["--data.prompt", "a recording of a violin solo", "--data.output", "{out}"]
    if scale.pairs == 1:
        command += ["--data.num_inference_steps", "1"]
    today = Side("today", "jobs/program.py", scale.today, {"arguments": command, "cwd": str(scale.today)})
    ours = {"arguments": command, "cwd": str(THIS)}
    question = f"folder of {scale.edits} edits of 10 s through predict"
    yield from against(question, 6, "jobs/program.py", ours, today, max(1, scale.pairs // 3), warm_up=0)


def against_pipeline(scale: Scale, mode: str) -> Iterator[Result]:
    """A text-only edit of one window, both branches, DDIM; ``sdedit`` starts from the recording at strength 0.75.

    Both sides make sound with the pipeline's own vocoder: diffusers has no Griffin-Lim behind it.
    """
    knobs = PAPER | {"num_inference_steps": scale.steps, "ap_scale": 0}
    knobs |= {"strength": 0.75} if mode == "sdedit" else {}
    ours = SAME | {"vocoder": "backbone", "knobs": knobs, "seconds": 5.12, "save": str(scale.work / mode)}
    theirs = {
        "folder": SAME["folder"],
        "mode": mode,
        "steps": scale.steps,
        "seconds": 5.12,
        "save": f"{ours['save']}-diffusers.npy",
    }
    other = Side("diffusers", "peers/diffusers_pipeline.py", scale.today, theirs)
    name = "exact edit against diffusers' pipeline call" if mode == "pipeline" else "SDEdit against a diffusers loop"
    yield from against(name, 2, "jobs/edit.py", ours, other, scale.pairs)


def difference(*sides: Side) -> float:
    """Largest difference of the latents that both sides have saved."""
    one, two = (np.load(Path(side.settings["save"])) for side in sides)
    return float(np.abs(one - two).max()) if one.shape == two.shape else float("nan")
