#!/usr/bin/env bash
# librosa's pYIN reports a tone below `fmin` as a steady, fully voiced tone at `fmin`, and a tone above `fmax` as a
# fully voiced tone somewhere below, which need not be an octave. Any two bass lines below `fmin` therefore have the
# same pitch curve.
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

RATE, LOWEST, HIGHEST = 16_000, 65.4, 2093.0


def tone(frequency, seconds=1.0):
    """A tone with harmonics that fall as 1/k, as a bass string has."""
    time = np.arange(round(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * frequency * k * time) / k for k in range(1, 13) if frequency * k < 0.48 * RATE]
    return 0.2 * np.sum(partials, axis=0).astype(np.float32)


def pitch(samples):
    frequency, voiced, _ = librosa.pyin(samples, fmin=LOWEST, fmax=HIGHEST, sr=RATE, frame_length=2048, resolution=0.2)
    return np.where(voiced, frequency, 0.0)


print(f"librosa {librosa.__version__}, pyin(fmin={LOWEST}, fmax={HIGHEST}) of single tones")
print("Expected: a tone outside the range is unvoiced, or is reported some octaves away from itself.")
changed = False
for frequency, expected_ratio in (
    (110.0, 1.0),
    (41.2, 1.587),
    (49.0, 1.335),
    (61.7, 1.06),
    (3000.0, 1 / 3),
    (4186.0, 0.2),
):
    found = pitch(tone(frequency))
    voiced, ratio = (found > 0).mean(), np.median(found[found > 0]) / frequency if (found > 0).any() else np.nan
    octaves = np.log2(ratio)
    print(
        f"  {frequency:7.1f} Hz: voiced in {voiced:.0%} of the frames, "
        f"at {ratio * frequency:7.1f} Hz ({octaves:+.2f} octaves)"
    )
    changed |= not (voiced > 0.95 and abs(ratio / expected_ratio - 1) < 0.02)
one = pitch(np.concatenate([tone(f, 0.5) for f in (41.2, 46.2, 49.0, 55.0)]))
other = pitch(np.concatenate([tone(f, 0.5) for f in (55.0, 41.2, 61.7, 43.7)]))
same = (np.abs(np.log2(one / other)) < 1 / 24).mean()
print(f"Two different bass lines (E1 F#1 G1 A1 and A1 E1 B1 F1) have the same pitch in {same:.0%} of the frames.")
changed |= same < 0.99
print("CHANGED" if changed else "As described: out-of-range tones are reported as confident wrong pitches.")
sys.exit(bool(changed))
EOF
