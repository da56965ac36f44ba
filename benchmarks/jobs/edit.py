"""One edit of a made-up recording through ``AudioEditor``; ``save`` keeps the final latents of each run."""

import apa_lightning  # noqa: F401  before torch, as on the command line: it sets the spins of torch's threads

# isort: split
import numpy as np
import torch
from serve import device, serve, settings
from sound import RATE, tune

from apa_lightning import AudioEditor

given = settings()

if "threads" in given:
    torch.set_num_threads(given["threads"])
folder = given.get("folder")  # of another backbone than the tree's own
parts = (
    {"backbone": folder, "audio_encoder": f"{folder}/audio_encoder", "adapter": given.get("adapter")} if folder else {}
)
if "vocoder" in given:
    parts["vocoder"] = given["vocoder"]
editor = AudioEditor.from_pretrained(**parts, device=device())
waveform = torch.from_numpy(tune(given.get("seconds", 10.24))).unsqueeze(0)
kept: list[torch.Tensor] = []
decode = editor.backbone.decode
editor.backbone.decode = lambda latents: kept.append(latents) or decode(latents)  # type: ignore[method-assign]


def unit() -> None:
    kept.clear()
    editor.edit(
        (waveform, RATE),
        prompt="a recording of a violin solo",
        negative_prompt="a recording of a piano solo",
        progress=False,
        **given.get("knobs", {}),
    )
    if "save" in given:
        np.save(given["save"], kept[0].float().cpu().numpy())


serve(unit)
