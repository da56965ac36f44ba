#!/usr/bin/env bash
# CLAP's feature extractor fills a short clip up by repeating it ("repeatpad", the setting of LAION's checkpoints),
# but only whole repetitions fit; the rest is silence. A clip of 5.00 s fills its 10 s window, one of 5.01 s leaves
# half of it silent, and so the features of nearly equal clips differ in half of their frames.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys

import numpy as np
import transformers
from transformers import ClapFeatureExtractor

extractor = ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
noise = np.random.default_rng(0).standard_normal(480_000).astype(np.float32) * 0.1
print(f"transformers {transformers.__version__}: ClapFeatureExtractor, window {extractor.nb_max_samples / 48_000:g} s")
print("Expected: a repeated clip fills the window, so no frame is silent.")
silent = {}
for seconds in (2.5, 3.0, 3.4, 4.99, 5.0, 5.01, 6.0, 9.0, 10.0):
    features = extractor(noise[: round(seconds * 48_000)], sampling_rate=48_000, return_tensors="np")["input_features"]
    silent[seconds] = float((features[0, 0].max(axis=-1) < -60).mean())
    print(f"  {seconds:5.2f} s: {silent[seconds]:4.0%} of the frames are silent")
as_described = silent[5.0] < 0.01 and abs(silent[5.01] - 0.5) < 0.01 and abs(silent[3.4] - 0.32) < 0.02
print("As described: a clip just above half the window leaves half of it silent." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
