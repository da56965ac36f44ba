#!/usr/bin/env bash
# StableAudioDiTModel casts the time of a step to the precision of its weights. The time is atan(sigma) * 2 / pi, which lies
# close to 1 for the first steps: in bfloat16 the first six of 100 steps are told the same time, 1.0, which stands for an
# infinite sigma, and in float16, which the documentation recommends, eleven steps repeat the time of another one. The
# scheduler goes on with the true sigmas, so that the model removes noise for another level than there is.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check diffusers==0.42.1 torch==2.14.1 transformers==5.24.0 numpy==2.4.6 \
        scipy==1.17.1 torchsde==0.2.6
} || exit 2
export OMP_NUM_THREADS=1

venv/bin/python -W ignore - 2> messages <<'EOF' || { cat messages >&2; exit 1; }
import math
import sys

import diffusers
import torch
from diffusers import CosineDPMSolverMultistepScheduler, StableAudioDiTModel

# The settings of stabilityai/stable-audio-open-1.0, and the pipeline's 100 steps.
scheduler = CosineDPMSolverMultistepScheduler(sigma_min=0.3, sigma_max=500, sigma_data=1.0, prediction_type="v_prediction")
scheduler.set_timesteps(100)
sigmas = scheduler.sigmas[:-1].tolist()

print(f"diffusers {diffusers.__version__}: Stable Audio's 100 steps from sigma {sigmas[0]:.0f} to {sigmas[-1]:.1f}")
print("Expected: the transformer is told the time of each step, whatever the precision of its weights.")
torch.manual_seed(0)
sizes = {"num_layers": 1, "num_attention_heads": 2, "num_key_value_attention_heads": 1, "attention_head_dim": 32}
sizes |= {"in_channels": 4, "out_channels": 4, "sample_size": 16, "cross_attention_dim": 64, "time_proj_dim": 32}
model = StableAudioDiTModel(**sizes, global_states_input_dim=64, cross_attention_input_dim=64)
told = []
model.time_proj.register_forward_pre_hook(lambda module, given: told.append(float(given[0])))
distinct, infinite = {}, {}
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    model, inputs = model.to(dtype), [torch.randn(1, *shape, dtype=dtype) for shape in ((4, 16), (3, 64), (1, 64))]
    told.clear()
    with torch.no_grad():
        for time in scheduler.timesteps:
            model(inputs[0], time[None], inputs[1], inputs[2])
    distinct[dtype], infinite[dtype] = len(set(told)), told.count(1.0)
    implied = [math.inf if time == 1 else math.tan(time * math.pi / 2) for time in told]
    finite = [max(one / sigma, sigma / one) for one, sigma in zip(implied, sigmas, strict=True) if one < math.inf]
    print(
        f"  {str(dtype):14s}: {distinct[dtype]:3d} different times, {infinite[dtype]} of them 1.0 (sigma infinite); "
        f"otherwise sigma is wrong by a factor of up to {max(finite):.2f}"
    )
as_described = (
    (distinct[torch.float32], infinite[torch.float32]) == (100, 0)
    and distinct[torch.float16] < 95
    and distinct[torch.bfloat16] < 70
    and infinite[torch.bfloat16] > 3
)
print("As described: half precision blurs the noise level of the first steps." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
