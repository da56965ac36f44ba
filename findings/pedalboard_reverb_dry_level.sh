#!/usr/bin/env bash
# In pedalboard's `Reverb`, `dry_level=1` with `wet_level=0` doubles the signal (+6 dB); the neutral value is 0.5. A
# full-scale recording clips when it is written.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check pedalboard==0.9.26 numpy==2.4.6
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys

import numpy as np
import pedalboard

samples = (0.25 * np.random.default_rng(0).standard_normal(44_100)).astype(np.float32).clip(-0.9, 0.9)
print(f"pedalboard {pedalboard.__version__}: Reverb without its wet part")
print("Expected: dry_level=1 leaves the signal as it is, dry_level=0.5 halves it.")
gains = {}
for dry in (0.25, 0.5, 1.0):
    result = pedalboard.Reverb(wet_level=0.0, dry_level=dry)(samples, 44_100)
    gains[dry] = float(np.dot(result.ravel(), samples) / np.dot(samples, samples))
    print(
        f"  dry_level={dry:<4g}: gain {gains[dry]:.3f} ({20 * np.log10(gains[dry]):+.1f} dB), "
        f"peak {np.abs(result).max():.2f}"
    )
as_described = all(abs(gain - 2 * dry) < 0.01 for dry, gain in gains.items())
print("As described: the gain is twice the dry level." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
