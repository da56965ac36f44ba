"""The published implementation's own numbers (``APA_GOLDEN``); cases are taken from the files' keys."""

import os
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from apa_lightning.adapters.attention import install, set_scale
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.audio import fbank, fit_length, log_mel, normalize_level, resample
from apa_lightning.backbones.audioldm2 import adapted_layers
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.conditioning.pooling import pool_tokens

GOLDEN = Path(os.environ.get("APA_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
FILES = sorted(GOLDEN.glob("*.safetensors")) if GOLDEN.is_dir() else []


#: What a file is about is told by the start of one of its keys.
KINDS = {"attention": "attn.", "pooling": "pooled_", "fbank": "fbank.", "log_mel": "log_mel.", "audiomae": "encoder."}


def kind_of(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
    return next((kind for kind, start in KINDS.items() if any(key.startswith(start) for key in keys)), None)


def files(kind: str) -> list[Path]:
    return [path for path in FILES if kind_of(path) == kind]


def golden(kind: str):
    """Parametrise over the golden files of one kind; one skip when there are none."""
    found = files(kind) or [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden {kind} file in {GOLDEN}"))]
    return pytest.mark.parametrize("path", found, ids=lambda path: path.stem if path else "absent")


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).norm() / expected.norm())


def test_every_golden_file_has_a_test():
    if not FILES:
        pytest.skip(f"no golden files in {GOLDEN}")
    assert not [path.name for path in FILES if kind_of(path) is None]


@golden("attention")
def test_decoupled_attention(path):
    case = load_file(path)
    width, context = case["attn.to_k.weight"].shape
    heads = int(case["heads"])
    unet = nn.Module()
    unet.attn2 = Attention(width, context, heads=heads, dim_head=width // heads)
    unet.text = nn.Module()
    unet.text.attn2 = Attention(width, context + 1, heads=heads, dim_head=width // heads)  # the other text stream
    unet.attn2.load_state_dict(
        {key.removeprefix("attn."): value for key, value in case.items() if key.startswith("attn.")}
    )
    layers = adapted_layers(unet, context)
    adapter = AudioPromptAdapter(layers)
    assert adapter.layer_names == ("attn2",)
    adapter.load_state_dict({f"attn2.processor.to_{p}_ip.weight": case[f"to_{p}_audio.weight"] for p in "kv"})
    install(layers, [adapter])
    set_scale(layers, float(case["alpha"]))
    with torch.no_grad():
        output = unet.attn2(case["hidden_states"], (case["text_states"], [case["audio_states"]]))
    assert relative_error(output, case["output"]) < 1e-5


@golden("pooling")
def test_pooling(path):
    case = load_file(path)
    tokens = case["tokens"][:, 1:]
    rates = [
        tuple(map(int, re.fullmatch(r"pooled_t(\d+)_f(\d+)", key).groups())) for key in case if key.startswith("pooled")
    ]
    assert rates
    for time, freq in rates:
        grid = tokens.unflatten(1, (-1, 8))
        assert relative_error(pool_tokens(grid, time, freq), case[f"pooled_t{time}_f{freq}"]) < 1e-5


def waveforms(case: dict[str, torch.Tensor]):
    """(name, 16 kHz waveform); the file's own rate is the second part of the key."""
    for key, waveform in case.items():
        if key.startswith("waveform."):
            name = key.removeprefix("waveform.")
            yield name, resample(waveform, int(re.search(r"_(\d+)_", name)[1]), 16_000)


@golden("fbank")
def test_fbank(path):
    case = load_file(path)
    for name, waveform in waveforms(case):
        expected = case[f"fbank.{name}"]
        assert relative_error(fbank(waveform, *expected.shape)[0, 0], expected) < 1e-4, name


@golden("log_mel")
def test_log_mel(path):
    case = load_file(path)
    for name, waveform in waveforms(case):
        expected = case[f"log_mel.{name}"]
        actual = log_mel(fit_length(normalize_level(waveform), len(expected) * 160))[0, 0]
        assert relative_error(actual, expected) < 1e-4, name


@golden("audiomae")
def test_audiomae(path):
    """The file does not name the number of heads: exactly one divisor of the width must give the published tokens."""
    case = load_file(path)
    weights = {key.removeprefix("encoder."): value for key, value in case.items() if key.startswith("encoder.")}
    width, depth = (
        weights["pos_embed"].shape[-1],
        1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks.")),
    )
    heads = [int(case["heads"])] if "heads" in case else [n for n in range(1, width + 1) if width % n == 0]
    errors = []
    for count in heads:
        encoder = VisionTransformer(
            img_size=tuple(case["input"].shape[-2:]),
            patch_size=weights["patch_embed.proj.weight"].shape[-1],
            in_chans=1,
            num_classes=0,
            global_pool="",
            embed_dim=width,
            depth=depth,
            num_heads=count,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        encoder.load_state_dict(weights)
        with torch.no_grad():
            errors.append(
                max(
                    relative_error(AudioMAE(encoder, layers).encode_fbank(case["input"]), case[f"tokens_{name}"])
                    for layers, name in (("last", "last_block"), ("mean_last_three", "mean_last_three_blocks"))
                )
            )
    assert sum(error < 1e-5 for error in errors) == 1, dict(zip(heads, errors, strict=True))
