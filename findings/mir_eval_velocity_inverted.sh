#!/usr/bin/env bash
# mir_eval's velocity-aware note scores fit a line to the velocities before they compare them, and the line may fall:
# an estimate in which loud and quiet notes are exchanged scores a perfect 1.0. A constant velocity, which is nearer,
# scores 0, and a single note matches with any velocity.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check mir_eval==0.8.2 numpy==2.4.6
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
from mir_eval.transcription_velocity import precision_recall_f1_overlap

starts = np.arange(8.0)
intervals, pitches = np.stack([starts, starts + 0.5], axis=1), 440 * 2 ** (starts / 12)
true = np.array([20.0, 110, 35, 90, 50, 75, 25, 100])
estimates = {
    "the same": true,
    "all at half the velocity": true / 2,
    "loud and quiet exchanged (128 - velocity)": 128 - true,
    "all 64": np.full(8, 64.0),
}
print(f"mir_eval {version('mir_eval')}: transcription_velocity, F1 of eight notes with exact times and pitches")
print("Expected: 1 for the same velocities, and less than a constant for exchanged ones.")
scores = {}
for name, velocities in estimates.items():
    scores[name] = precision_recall_f1_overlap(intervals, pitches, true, intervals, pitches, velocities)[2]
    print(f"  {name:42s}: {scores[name]:.2f}")
single = precision_recall_f1_overlap(
    intervals[:1], pitches[:1], np.array([127.0]), intervals[:1], pitches[:1], np.array([1.0])
)[2]
print(f"  {'a single note, velocity 1 instead of 127':42s}: {single:.2f}")
as_described = list(scores.values()) == [1.0, 1.0, 1.0, 0.0] and single == 1.0
print("As described: inverted dynamics are a perfect score." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
