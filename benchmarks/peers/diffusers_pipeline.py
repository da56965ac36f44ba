"""Peer: diffusers' own ``AudioLDM2Pipeline`` call for the text of an edit, and the SDEdit loop with its U-Net.

``mode`` is ``pipeline`` or ``sdedit``. The noise, the prompts and the scheduler's steps are those of our edit; ``save`` keeps the
final latents, so that both can be compared.
"""

import apa_lightning  # noqa: F401  before torch, as on the command line: it sets the spins of torch's threads

# isort: split
import numpy as np
import torch
from serve import device, serve, settings
from sound import tune

from apa_lightning.backbones.factory import load_backbone
from apa_lightning.utils.rng import generator_for, randn

given = settings()

PROMPT, NEGATIVE = "a recording of a violin solo", "a recording of a piano solo"
where = device()
backbone = load_backbone(given.get("folder") or "embedded").to(where)
pipeline, steps, guidance = backbone.pipeline, given["steps"], 7.5
pipeline.set_progress_bar_config(disable=True)
waveform = torch.from_numpy(tune(given["seconds"])).unsqueeze(0).to(where)
noise = randn((1, *backbone.latent_shape()), generator_for(0, "edit"), torch.empty(0, device=where))
kept: list[torch.Tensor] = []
decode = pipeline.vae.decode
pipeline.vae.decode = lambda latents, *args, **kw: kept.append(latents) or decode(latents, *args, **kw)


@torch.no_grad()
def text_only() -> None:
    """What the class's documentation shows, with our noise."""
    pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        audio_length_in_s=backbone.window_seconds,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
    )


@torch.no_grad()
def sdedit() -> None:
    """Start from the recording under noise; a plain loop around the pipeline's U-Net, without a cache of any kind."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(steps)
    encoded, mask, generated = pipeline.encode_prompt(PROMPT, where, 1, True, negative_prompt=NEGATIVE)
    run = scheduler.timesteps[steps - int(steps * 0.75) :]
    latents = scheduler.add_noise(backbone.encode_audio(waveform), noise, run[:1])
    for time in run:
        predicted = pipeline.unet(
            torch.cat([latents] * 2),
            time,
            encoder_hidden_states=generated,
            encoder_hidden_states_1=encoded,
            encoder_attention_mask_1=mask,
            return_dict=False,
        )[0]
        negative, positive = predicted.chunk(2)
        latents = scheduler.step(negative + guidance * (positive - negative), time, latents).prev_sample
    mel = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    pipeline.mel_spectrogram_to_waveform(mel)


def unit() -> None:
    kept.clear()
    {"pipeline": text_only, "sdedit": sdedit}[given["mode"]]()
    if "save" in given:
        np.save(given["save"], (kept[0] * pipeline.vae.config.scaling_factor).cpu().numpy())


serve(unit)
