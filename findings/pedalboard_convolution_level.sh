#!/usr/bin/env bash
# pedalboard's Convolution scales every impulse response by its energy before it is used, which its documentation does
# not say: the response "1, then silence" makes the sound 18.06 dB quieter, and a response at half the level, or with
# a second tap, is as loud as the first one.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check pedalboard==0.9.26 numpy==2.4.6
} || exit 2
export OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
from pedalboard import Convolution

rate, second_tap = 44_100, 500
sound = np.random.default_rng(0).standard_normal((1, rate)).astype(np.float32) * 0.1
responses = {"1": {0: 1.0}, "0.5": {0: 0.5}, "2": {0: 2.0}, "1 and 1": {0: 1.0, second_tap: 1.0}}
print(f"pedalboard {version('pedalboard')}: Convolution(mix=1), level of noise through impulse responses")
print("Expected: the convolution, so 0 dB, -6.02 dB, +6.02 dB, +3.01 dB.")
levels = {}
for name, taps in responses.items():
    response = np.zeros(1000, np.float32)
    for place, value in taps.items():
        response[place] = value
    made = Convolution(response, 1.0, rate)(sound, rate)
    levels[name] = 20 * np.log10(made.std() / sound.std())
    print(f"  {name:8s}: {levels[name]:+.2f} dB")
as_described = all(abs(level + 18.06) < 0.2 for level in levels.values())
print("As described: each response is scaled to the same energy, 1/8 of a unit pulse." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
