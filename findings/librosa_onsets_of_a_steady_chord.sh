#!/usr/bin/env bash
# `librosa.onset.onset_detect` finds more than ten onsets per second in a chord that never changes, and one onset in a
# single steady tone: it divides the onset strength by its own maximum, so the beating between partials, however
# small, becomes onsets. An onset score of two sustained sounds compares such artifacts.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check librosa==0.11.0 numpy==2.4.6 scipy==1.17.1
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys

import librosa
import numpy as np

RATE = 22_050
time = np.arange(5 * RATE) / RATE
sounds = {
    "one sine, 440 Hz": [440.0],
    "A major triad of sines, 220 Hz up": [220.0, 277.18, 329.63],
    "A major triad of sines, 440 Hz up": [440.0, 554.37, 659.26],
    "eight harmonics of 110 Hz": [110.0 * k for k in range(1, 9)],
}
print(f"librosa {librosa.__version__}: onset_detect with its defaults, sounds of constant amplitude, 5 s")
print("Expected: at most the start is an onset.")
counts = {}
for name, frequencies in sounds.items():
    samples = 0.1 * sum(np.sin(2 * np.pi * f * time) for f in frequencies).astype(np.float32)
    counts[name] = len(librosa.onset.onset_detect(y=samples, sr=RATE))
    # Without the first second no start is left in the clip.
    inside = len(librosa.onset.onset_detect(y=samples[RATE:], sr=RATE))
    print(f"  {name:36s}: {counts[name]:3d} onsets, {inside} of its last 4 s alone")
triads = [count for name, count in counts.items() if "triad" in name]
as_described = counts["one sine, 440 Hz"] <= 2 and min(triads) > 50 and counts["eight harmonics of 110 Hz"] > 30
print("As described: an unchanging chord has more than ten onsets per second." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
