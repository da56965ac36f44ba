#!/usr/bin/env bash
# mir_eval's melody scores extend an estimate that ends too early: its last pitch is held, voiced, to the end of the
# reference. A pitch tracker that returns only the first tenth of a held note, or of a clip, is rewarded for the other
# nine.
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
import warnings
from importlib.metadata import version

import numpy as np
from mir_eval.melody import evaluate

warnings.simplefilter("ignore")
times = np.arange(1000) * 0.01
reference = np.full(1000, 440.0)
print(f"mir_eval {version('mir_eval')}: melody.evaluate, reference: 10 s of 440 Hz")
print("Expected: an estimate that ends after 1 s finds a tenth of the frames.")
scores = {}
for name, estimate_times, estimate in (
    ("10 s, unvoiced after 1 s", times, np.where(times < 1, 440.0, 0.0)),
    ("ends after 1 s", times[:100], reference[:100]),
    ("ends after 1 s, with one unvoiced frame at 1 s", times[:101], np.append(reference[:100], 0.0)),
):
    result = evaluate(times, reference, estimate_times, estimate)
    scores[name] = float(result["Overall Accuracy"])
    print(
        f"  {name:48s}: voicing recall {result['Voicing Recall']:.2f}, raw pitch {result['Raw Pitch Accuracy']:.2f}, "
        f"overall {scores[name]:.2f}"
    )
unvoiced, stopped, closed = scores.values()
as_described = abs(unvoiced - 0.1) < 0.02 and stopped > 0.95 and abs(closed - 0.1) < 0.02
print("As described: a curve that stops is extended; one unvoiced frame prevents it." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
