#!/usr/bin/env bash
# PNDM without Runge-Kutta steps calls the model twice at its second time. An image-to-image loop takes the last part of
# its list of times, as diffusers' own pipelines do; the scheduler still begins with the doubled call and goes one step
# less far: from the third call on, the model is told a time that is one step less noisy than the latents are.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check diffusers==0.42.1 torch==2.14.1 transformers==5.24.0 numpy==2.4.6
} || exit 2
export OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys

import diffusers
import torch
from diffusers import PNDMScheduler

STEPS = 20
scheduler = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
)
print(f"diffusers {diffusers.__version__}: PNDMScheduler, {STEPS} steps, an all-zero picture whose noise is told exactly")
print("Expected: the latents have the noise of the time that the model is told, at each call.")
error = {}
for strength in (1.0, 0.5):
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps[STEPS - int(STEPS * strength) :]
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    latents = noise if strength == 1 else scheduler.add_noise(torch.zeros_like(noise), noise, times[:1])
    print(f"  strength {strength:g}:")
    for call, time in enumerate(times[:6], 1):
        told, found = float((1 - scheduler.alphas_cumprod[time]) ** 0.5), float(latents.std())
        print(f"    call {call}, time {int(time):3d}: noise of the time {told:.3f}, of the latents {found:.3f}")
        error[strength] = abs(found - told)
        latents = scheduler.step(latents / told, time, latents).prev_sample
as_described = error[1.0] < 0.01 < 0.03 < error[0.5]
print("As described: from the middle, the latents stay one step too noisy." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
