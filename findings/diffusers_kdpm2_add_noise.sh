#!/usr/bin/env bash
# KDPM2DiscreteScheduler calls the model also at times between two steps. Its `add_noise`, given such a time, takes the
# noise of the step's end: an inpainting loop that keeps a part of the latents by `add_noise` at each call puts too
# little noise there at every other call.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check diffusers==0.42.1 torch==2.14.1 transformers==5.24.0 numpy==2.4.6 \
        scipy==1.17.1
} || exit 2
export OMP_NUM_THREADS=1

venv/bin/python -W ignore - <<'EOF'
import sys

import diffusers
import torch
from diffusers import KDPM2DiscreteScheduler

scheduler = KDPM2DiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
scheduler.set_timesteps(5)
trained = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()


def sigma_of(time: float) -> float:
    """The noise level at a time, between those of the whole times around it."""
    below = int(time)
    return float(torch.lerp(trained[below], trained[min(below + 1, len(trained) - 1)], time % 1))


print(f"diffusers {diffusers.__version__}: KDPM2DiscreteScheduler, 5 steps")
print("Expected: add_noise at the time of a call adds the noise of that time.")
latents, ratios = torch.randn(4) * scheduler.init_noise_sigma, []
for call, (time, following) in enumerate(zip(scheduler.timesteps[:-1], scheduler.timesteps[1:], strict=True), 1):
    latents = scheduler.step(torch.zeros(4), time, latents).prev_sample
    added = float(scheduler.add_noise(torch.zeros(1), torch.ones(1), following[None]))
    ratios.append(added / sigma_of(float(following)))
    print(f"  call {call + 1} at time {float(following):5.1f}: sigma {sigma_of(float(following)):6.3f}, of add_noise {added:6.3f}")
inside, ends = ratios[::2], ratios[1::2]
as_described = max(inside[:-1]) < 0.8 and all(abs(ratio - 1) < 0.02 for ratio in ends)
print("As described: between two steps add_noise takes the noise of the step's end." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
