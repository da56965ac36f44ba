#!/usr/bin/env bash
# GNU tar stores the second of two hard-linked files as a link. webdataset passes over links without a word: where a
# dataset was deduplicated with hard links, the samples whose audio is a link arrive without audio, and nothing is
# counted or warned of. Python's tarfile and `tar -x` read the same members whole.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check \
        webdataset==1.0.2 numpy==2.4.6 PyYAML==6.0.4 braceexpand==0.1.7
} || exit 2
export NUMBA_CACHE_DIR="$folder/numba" OMP_NUM_THREADS=1

venv/bin/python - <<'EOF'
import os
import subprocess
import sys
import tarfile
from importlib.metadata import version

import webdataset

os.mkdir("clips")
for key in ("a", "b"):
    with open(f"clips/{key}.flac", "wb") as file:
        file.write(b"audio of " + key.encode())
os.link("clips/a.flac", "clips/c.flac")  # what deduplication makes of a copy
for key in "abc":
    with open(f"clips/{key}.json", "w") as file:
        file.write("{}")
names = sorted(os.listdir("clips"))
subprocess.run(["tar", "-cf", "shard.tar", "-C", "clips", *names], check=True)
print(
    f"webdataset {version('webdataset')}: a shard of three clips, the third one's audio a hard link to the first one's"
)
print("Expected: three samples with audio, or an error.")
with tarfile.open("shard.tar") as tar:
    contents = {info.name: tar.extractfile(info).read() for info in tar}
print("  tarfile reads c.flac as", contents["c.flac"])
samples = list(webdataset.WebDataset("shard.tar", shardshuffle=False))
for sample in samples:
    print(f"  webdataset: {sample['__key__']} holds", sorted(key for key in sample if not key.startswith("__")))
as_described = contents["c.flac"] == b"audio of a" and [sorted(k for k in s if k[0] != "_") for s in samples] == [
    ["flac", "json"],
    ["flac", "json"],
    ["json"],
]
print("As described: the linked audio is left out silently." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
