#!/usr/bin/env bash
# pedalboard reads the MP3 that it has written itself 1,105 samples late (25 ms at 44.1 kHz, 69 ms at 16 kHz) and
# longer than it was, although the file says how many samples to drop. libsndfile and FFmpeg (PyAV) read the same file
# aligned and with its own length. Source and result that were decoded by different readers are not aligned.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check pedalboard==0.9.26 soundfile==0.14.0 av==18.1.0 numpy==2.4.6
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import sys

import av
import numpy as np
import pedalboard
import soundfile
from pedalboard.io import AudioFile


def lag(reference, samples):
    size = 1 << int(np.ceil(np.log2(len(reference) + len(samples))))
    cross = np.fft.irfft(np.conj(np.fft.rfft(reference, size)) * np.fft.rfft(samples, size))
    best = int(np.argmax(cross))
    return best if best < size // 2 else best - size


def by_pedalboard(path):
    with AudioFile(path) as file:
        return file.read(file.frames)[0]


def by_ffmpeg(path):
    with av.open(path) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


readers = {"pedalboard": by_pedalboard, "libsndfile": lambda path: soundfile.read(path)[0], "FFmpeg": by_ffmpeg}
print(f"pedalboard {pedalboard.__version__}, libsndfile {soundfile.__libsndfile_version__}, PyAV {av.__version__}")
print("Expected: all readers return the samples where they were, as many as there were.")
results = {}
for rate in (16_000, 44_100):
    noise = np.random.default_rng(1).standard_normal(2 * rate)
    samples = np.convolve(noise, np.hanning(9) / 30, "same").astype(np.float32)  # lowpass: MP3 keeps it
    path = f"{rate}.mp3"
    with AudioFile(path, "w", rate, 1, quality=192 if rate == 44_100 else 64) as file:
        file.write(samples)
    for name, read in readers.items():
        found = read(path)
        results[rate, name] = lag(samples, found), len(found) - len(samples)
        late, longer = results[rate, name]
        print(f"  {rate} Hz, {name:10s}: {late} samples late ({1000 * late / rate:.0f} ms), {longer} samples longer")
as_described = all(
    results[rate, "pedalboard"][0] == 1105
    and results[rate, "pedalboard"][1] > 1105
    and results[rate, "libsndfile"] == results[rate, "FFmpeg"] == (0, 0)
    for rate in (16_000, 44_100)
)
print("As described: only pedalboard's reader is late." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
