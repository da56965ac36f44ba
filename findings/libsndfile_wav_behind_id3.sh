#!/usr/bin/env bash
# libsndfile reads a WAV file that stands behind an ID3v2 tag, as some taggers write it, but it ends as many bytes before
# the end of the sound as the tag is long, without an error: `frames` and what is read agree with each other.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
} || exit 2

venv/bin/python - <<'EOF'
import io
import sys

import numpy as np
import soundfile

FRAMES = 44_100
wav = io.BytesIO()
noise = np.random.default_rng(0).normal(0, 0.1, (FRAMES, 1)).astype(np.float32)
soundfile.write(wav, noise, FRAMES, format="WAV", subtype="PCM_16")
print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}: one second of 16-bit mono behind a tag")
print(f"Expected: {FRAMES} frames whatever the tag, or an error.")
lost = {}
for size in (0, 1_000, 50_000):
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x04\0\0" + length + bytes(size) if size else b""
    with soundfile.SoundFile(io.BytesIO(tag + wav.getvalue())) as file:
        read = len(file.read())
        print(f"  tag of {len(tag):6d} bytes: frames {file.frames}, read {read}")
        lost[len(tag)] = FRAMES - read
as_described = all(frames == -(-size // 2) for size, frames in lost.items())
print("As described: the end of the sound is missing by the length of the tag." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
