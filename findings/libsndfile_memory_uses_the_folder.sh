#!/usr/bin/env bash
# Audio that soundfile writes to memory or reads from memory depends on the working folder. Writing the SD2 format to
# a `BytesIO` leaves an empty file named `._` in the working folder (SD2's header belongs into a Macintosh resource
# fork). While it is there, every MP3 without an ID3 tag that is read from memory is taken for SD2 and refused,
# although the bytes are the same. The same lookup for files with names is known upstream; that it also happens
# without any file is what surprises here.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import io
import os
import sys

import numpy as np
import soundfile

samples = 0.3 * np.sin(np.arange(16_000) / 7)


def encoded(name):
    memory = io.BytesIO()
    soundfile.write(memory, samples, 16_000, format=name)
    return memory.getvalue()


def read(data):
    try:
        return f"{soundfile.info(io.BytesIO(data)).frames} frames"
    except soundfile.LibsndfileError as error:
        return f"refused: {error.error_string}"


os.mkdir("work")
os.chdir("work")
print(f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}")
print("Expected: what is in memory is read the same everywhere, and writing to memory leaves no file.")
files = {name: encoded(name) for name in ("MP3", "WAV", "FLAC", "OGG")}
before = {name: read(data) for name, data in files.items()}
print("  read from memory in an empty folder:", before)
encoded("SD2")
left = os.listdir(".")
after = {name: read(data) for name, data in files.items()}
print("  after writing SD2 to memory the folder holds:", left)
print("  the same bytes read again:", after)
os.remove(left[0]) if left else None
removed = read(files["MP3"])
print("  MP3 after that file is removed:", removed)
as_described = (
    left == ["._"]
    and set(before.values()) == {"16000 frames"}
    and after["MP3"].startswith("refused")
    and all(after[name] == "16000 frames" for name in ("WAV", "FLAC", "OGG"))
    and removed == "16000 frames"
)
print("As described: a file in the working folder decides what is read from memory." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
