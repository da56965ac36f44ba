#!/usr/bin/env bash
# An `EncodecModel` that is made from a configuration (not from a checkpoint) has codebooks of zeros: every sound gets code
# 0 in every codebook, and all codes decode to the same sound. A test or a tiny model with random weights then cannot tell a
# codec that works from one that does not: codes of the wrong order, book or time pass unseen. `DacModel` draws its codebooks.
# Exit status: 0 the behavior is as described, 1 it has changed, 2 the packages cannot be installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
{
    python3 -m venv venv
    venv/bin/pip install -qq --disable-pip-version-check transformers==5.24.0 torch==2.14.1 numpy==2.4.6
} || exit 2
export OMP_NUM_THREADS=1

venv/bin/python -W ignore - <<'EOF'
import sys

import torch
import transformers
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

torch.manual_seed(0)
print(f"transformers {transformers.__version__}: codecs with random weights, 1 s of white noise")
print("Expected: noise gets many different codes, and different codes decode to different sounds.")
sound = 0.1 * torch.randn(1, 1, 24_000)
codecs = {
    "EncodecModel": EncodecModel(EncodecConfig()).eval(),
    "DacModel": DacModel(DacConfig(encoder_hidden_size=8, decoder_hidden_size=64, hidden_size=64)).eval(),
}
found = {}
with torch.no_grad():
    for name, codec in codecs.items():
        codes = codec.encode(sound).audio_codes
        others = torch.randint(0, 1024, codes.shape)
        if name == "DacModel":
            decoded = [codec.decode(audio_codes=one).audio_values for one in (codes, others)]
        else:
            decoded = [codec.decode(one, [None]).audio_values for one in (codes, others)]
        found[name] = len(codes.unique()), float((decoded[0] - decoded[1]).abs().max())
        print(f"  {name:12s}: {found[name][0]:4d} different codes; decoded with random codes instead: {found[name][1]:.2g} apart")
as_described = found["EncodecModel"] == (1, 0) and found["DacModel"][0] > 10 and found["DacModel"][1] > 0
print("As described: EnCodec's codebooks are zeros until a checkpoint is loaded." if as_described else "CHANGED")
sys.exit(not as_described)
EOF
