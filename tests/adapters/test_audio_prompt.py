"""Which layers are adapted, exactness of alpha = 0 and of the initialisation, scales, and adapter files."""

import pickle

import pytest
import safetensors.torch
import torch
from random_folders import tiny_backbone

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.adapters.base import AdapterError
from apa_lightning.adapters.scale import expand_scale
from apa_lightning.audio import save_audio
from apa_lightning.backbones.architectures import AUDIOLDM2_LARGE, TINY, adapted_unet
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone, adapted_layers
from apa_lightning.errors import InputError


@pytest.fixture()
def inputs(backbone):
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *backbone.latent_shape(), generator=draw)
    loa = torch.randn(2, 32, backbone.stream_width, generator=draw)
    return latents, torch.tensor([7, 800]), backbone.encode_text(["a violin", "jazz music, slow"]), loa


def predict(backbone, inputs, *loa):
    latents, timesteps, text, tokens = inputs
    with torch.no_grad():
        return backbone.predict(latents, timesteps, text, [tokens] * len(loa) if loa else [])


def test_large_architecture_has_the_published_sizes():
    with torch.device("meta"):
        unet, layers = adapted_unet(AUDIOLDM2_LARGE)
        adapter = AudioPromptAdapter(layers)
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6, 1) == 718.0
    assert len(adapter.layer_names) == 32
    assert sum(p.numel() for p in adapter.parameters()) == 21_626_880
    assert all(
        key.endswith(("attn2.processor.to_k_ip.weight", "attn2.processor.to_v_ip.weight"))
        for key in adapter.state_dict()
    )


def test_exact_key_set(backbone):
    layer = "{}.transformer_blocks.0.attn2.processor.to_{}_ip.weight"
    modules = [
        "down_blocks.2.attentions.1",
        "mid_block.attentions.1",
        "up_blocks.0.attentions.1",
        "up_blocks.0.attentions.5",
    ]
    assert set(backbone.new_adapter().state_dict()) == {
        layer.format(module, part) for module in modules for part in "kv"
    }


def test_untrained_adapter_is_its_copied_initialisation(backbone):
    adapter = backbone.new_adapter()
    for name in adapter.layer_names:
        attention = backbone.unet.get_submodule(name)
        assert torch.equal(adapter.pair(name).to_k_ip.weight, attention.to_k.weight)
        assert torch.equal(adapter.pair(name).to_v_ip.weight, attention.to_v.weight)
        assert adapter.pair(name).to_k_ip.bias is None


def test_scale_zero_is_the_untouched_unet_bit_for_bit(backbone, inputs):
    untouched, keys = predict(backbone, inputs), set(backbone.state_dict())
    backbone.install([backbone.new_adapter()])
    assert torch.equal(predict(backbone, inputs), untouched)  # no audio prompt
    assert not torch.equal(predict(backbone, inputs, 1), untouched)
    backbone.set_scale(0.0)
    assert torch.equal(predict(backbone, inputs, 1), untouched)
    assert set(backbone.state_dict()) == keys
    backbone.install([])
    assert torch.equal(predict(backbone, inputs), untouched)


def test_zero_tokens_are_no_audio_prompt(backbone, inputs):
    """The paper's c_x = 0: keys and values have no bias, so zero tokens add zero."""
    untouched = predict(backbone, inputs)
    backbone.install([backbone.new_adapter()])
    *rest, loa = inputs
    assert torch.equal(predict(backbone, (*rest, torch.zeros_like(loa)), 1), untouched)


def test_several_adapters_add_up(backbone, inputs):
    """Two equal adapters with scales a and b are one with a + b, and each can be switched off."""
    adapter = backbone.new_adapter()
    backbone.install([adapter])
    backbone.set_scale(0.75)
    one = predict(backbone, inputs, 1)
    backbone.install([adapter, backbone.new_adapter()])
    backbone.set_scale([0.5, 0.25])
    assert torch.allclose(predict(backbone, inputs, 1, 2), one, atol=1e-6)
    backbone.set_scale([0.75, 0.0])
    assert torch.equal(predict(backbone, inputs, 1, 2), one)
    with pytest.raises(AdapterError, match="3 scales for 2 adapters"):
        backbone.set_scale([1.0, 1.0, 1.0])


def test_scale_forms():
    names = tuple(
        f"{block}.transformer_blocks.0.attn2"
        for block in (
            "down_blocks.2.attentions.1",
            "down_blocks.2.attentions.5",
            "mid_block.attentions.1",
            "up_blocks.0.attentions.1",
        )
    )
    assert list(expand_scale(0.5, names).values()) == [0.5] * 4
    assert list(expand_scale({"down": {"block_2": [0.1, 0.2]}, "mid": 0.3}, names).values()) == [0.1, 0.2, 0.3, 0.0]
    assert list(expand_scale({"down": 1, "up_blocks.0": 0.5}, names).values()) == [1.0, 1.0, 0.0, 0.5]
    assert list(expand_scale({"down": 1.0, "down_blocks.2.attentions.5": 0.0}, names).values()) == [1.0, 0.0, 0.0, 0.0]
    for bad, message in [
        ({"down": {"block_1": 1.0}}, "no adapted layer in 'down_blocks.1'"),
        ({"up": [1.0, 1.0]}, "1 adapted layers, 2 scales"),
        (float("nan"), "not a finite number"),
        (True, "not a finite number"),
        ({"mid": "x"}, "not a finite number"),
    ]:
        with pytest.raises(AdapterError, match=message):
            expand_scale(bad, names)


def test_scale_per_block_reaches_the_layers(backbone, inputs):
    untouched = predict(backbone, inputs)
    backbone.install([backbone.new_adapter()])
    backbone.set_scale({"mid": 1.0})
    only_mid = predict(backbone, inputs, 1)
    backbone.set_scale(1.0)
    assert not torch.equal(only_mid, untouched)
    assert not torch.equal(only_mid, predict(backbone, inputs, 1))


def test_save_load_and_published_round_trip(tmp_path, backbone):
    adapter = backbone.new_adapter()
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn_like(weight))
    adapter.save(tmp_path / "a.safetensors", step=7)
    adapter.export_published(tmp_path / "pytorch_model.bin")
    assert all(path.stat().st_mode & 0o044 for path in tmp_path.iterdir())
    published = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert set(published) == set(adapter.state_dict())
    for file in ("a.safetensors", "pytorch_model.bin"):
        loaded = backbone.new_adapter(tmp_path / file)
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in adapter.state_dict().items())
        assert loaded.digest() == adapter.digest() != backbone.new_adapter().digest()
    assert backbone.new_adapter(tmp_path / "a.safetensors").metadata["step"] == "7"
    assert loaded.metadata["dropped_audio"] == "zero_fbank"  # the published code's convention


@pytest.fixture
def trained(backbone):
    """An adapter that differs from its initialization, as a checkpoint of training describes it."""
    adapter = backbone.new_adapter()
    with torch.no_grad():
        next(adapter.parameters()).add_(1)
    adapter.metadata = {"dropped_audio": "zeros", "loa_layers": "last", "backbone": "tiny"}
    return adapter


def as_checkpoint(adapter) -> dict:
    about = {"metadata": adapter.metadata, "backbone_fingerprint": adapter.backbone_fingerprint}
    return {"state_dict": {f"adapter.{name}": value for name, value in adapter.state_dict().items()}, "adapter": about}


@pytest.mark.parametrize(
    "place", ["run/checkpoints/last.ckpt", "best.ckpt", "run/adapter.safetensors", "hub/pytorch_model.bin"]
)
def test_an_adapter_is_taken_out_of_checkpoints_and_folders(tmp_path, backbone, trained, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".ckpt":
        torch.save(as_checkpoint(trained), file)
    elif file.suffix == ".bin":
        trained.export_published(file)
    else:
        trained.save(file)
    loaded = backbone.new_adapter(file if place == "best.ckpt" else tmp_path / place.split("/")[0])
    assert loaded.digest() == trained.digest()
    assert loaded.metadata["dropped_audio"] == ("zero_fbank" if file.suffix == ".bin" else "zeros")


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path, backbone, trained):
    trained.backbone_fingerprint = trained.backbone_fingerprint + 1
    torch.save(as_checkpoint(trained), tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="trained on tiny, whose weights differ"):
        backbone.new_adapter(tmp_path / "last.ckpt")


def test_a_folder_without_an_adapter_says_where_one_is(tmp_path, backbone, trained):
    with pytest.raises(
        InputError, match=r"is a folder without an adapter. Give a file, or a folder with adapter.safetensors"
    ):
        backbone.new_adapter(tmp_path)
    trained.save(tmp_path / "lightning_logs" / "version_0" / "adapter.safetensors")
    with pytest.raises(InputError, match=r"Give .*version_0/adapter.safetensors"):
        backbone.new_adapter(tmp_path)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_forward_module.unet.{name}",
        lambda name: f"unet._orig_mod.{name}",
        lambda name: name.replace("attn2", "attn2._orig_mod"),
        lambda name: f"model.adapter.{name}",
    ],
)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_names_that_wrappers_add_are_taken_off(tmp_path, backbone, trained, wrapped, suffix):
    weights = {wrapped(name): value for name, value in trained.state_dict().items()}
    file = tmp_path / f"x{suffix}"
    torch.save(weights, file) if suffix == ".bin" else safetensors.torch.save_file(weights, file, {"format": "pt"})
    loaded = backbone.new_adapter(file)
    assert loaded.digest() == trained.digest() and loaded.metadata["dropped_audio"] == "zero_fbank"


def test_two_weights_of_one_name_are_not_chosen_between(tmp_path, backbone, trained):
    weights = {
        f"{wrapper}.{name}": value for name, value in trained.state_dict().items() for wrapper in ("module", "unet")
    }
    torch.save(weights, tmp_path / "x.bin")
    with pytest.raises(InputError, match="lacks 8 of 8 weights"):
        backbone.new_adapter(tmp_path / "x.bin")


class Payload:
    def __reduce__(self):
        return (open, ("canary", "w"))


def rewritten(path, change, **metadata):
    """The adapter file with its weights changed by ``change``."""
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata() | metadata
    change(weights)
    safetensors.torch.save_file(weights, path, metadata=header)


FIRST = "down_blocks.2.attentions.1.transformer_blocks.0.attn2.processor.to_k_ip.weight"
DAMAGES = {
    "missing layer": (lambda p: rewritten(p, lambda w: w.pop(FIRST)), f"lacks 1 of 8 weights .* first {FIRST}"),
    "extra layer": (
        lambda p: rewritten(p, lambda w: w.update(other=torch.ones(1))),
        "holds 1 weights that this backbone lacks, first other",
    ),
    "wrong width": (
        lambda p: rewritten(p, lambda w: w.update({FIRST: torch.ones(2, 3)})),
        f"{FIRST} has shape \\(2, 3\\), this backbone needs",
    ),
    "NaN": (lambda p: rewritten(p, lambda w: w[FIRST].fill_(float("nan"))), f"{FIRST} contains NaN"),
    "other backbone": (
        lambda p: rewritten(p, lambda w: None, backbone_fingerprint="1 2 3"),
        "trained on tiny, whose weights differ",
    ),
    "newer format": (lambda p: rewritten(p, lambda w: None, format_version="99"), "format version 99"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:200]), "damaged or no safetensors"),
    "empty": (lambda p: p.write_bytes(b""), "damaged or no safetensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_files_are_refused_by_name_and_nothing_is_loaded(tmp_path, backbone, damage):
    path = tmp_path / "a.safetensors"
    adapter = backbone.new_adapter()
    adapter.save(path, backbone="tiny")
    before = adapter.digest()
    change, message = DAMAGES[damage]
    change(path)
    with pytest.raises(InputError, match=message) as error:
        adapter.load(path)
    assert str(path) in str(error.value)
    assert adapter.digest() == before


def test_a_recording_is_no_adapter(tmp_path, backbone):
    """Its bytes are read as commands of a pickle."""
    save_audio(tmp_path / "song.wav", torch.rand(1_000), 16_000)
    with pytest.raises(InputError, match=r"song\.wav is damaged or no weights file"):
        backbone.new_adapter(tmp_path / "song.wav")


def test_pickles_are_not_executed(tmp_path, backbone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Payload()}))
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        backbone.new_adapter(tmp_path / "pytorch_model.bin")
    torch.save({"w": Payload()}, tmp_path / "zipped.bin")
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(InputError, match="It was not executed"):
        backbone.new_adapter(tmp_path / "zipped.bin")
    assert not (tmp_path / "canary").exists()
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        backbone.new_adapter(tmp_path / "none.safetensors")


def test_streams_of_one_width_are_refused():
    from dataclasses import replace

    alike = replace(TINY, t5={**TINY.t5, "d_model": TINY.gpt2["n_embd"]})
    with torch.device("meta"):
        unet = alike.build_unet()
    with pytest.raises(AdapterError, match="different widths"):
        adapted_layers(unet, TINY.gpt2["n_embd"])
    with pytest.raises(AdapterError, match="reads 5 channels"):
        adapted_layers(unet, 5)


def test_an_adapter_of_another_kind_of_backbone_is_refused_by_name(tmp_path, backbone):
    adapter = backbone.new_adapter()
    adapter.backbone_kind = "stable_audio"
    adapter.save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="of the kind stable_audio; this one is of the kind audioldm2"):
        backbone.new_adapter(tmp_path / "a.safetensors")


def test_another_backbone_of_the_same_sizes_is_told_apart(tmp_path, backbone):
    from apa_lightning.backbones.architectures import save_random_backbone

    save_random_backbone(tmp_path / "other", seed=1)
    other = AudioLDM2Backbone.from_pretrained(tmp_path / "other")
    backbone.new_adapter().save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="Give the backbone it was trained on"):
        other.new_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("trained_in", "used_in"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float16, torch.float32)],
)
def test_an_adapter_fits_its_backbone_in_every_precision(tmp_path, trained_in, used_in):
    adapter = AudioLDM2Backbone.from_pretrained(tiny_backbone(), trained_in).new_adapter()
    assert adapter.is_untrained
    adapter.save(tmp_path / "a.safetensors")
    AudioLDM2Backbone.from_pretrained(tiny_backbone(), used_in).new_adapter(tmp_path / "a.safetensors")
    digest = adapter.digest()
    assert adapter.to(torch.bfloat16).digest() == digest


def test_a_published_checkpoint_converted_by_others_keeps_its_conventions(tmp_path, backbone):
    safetensors.torch.save_file(backbone.new_adapter().state_dict(), tmp_path / "converted.safetensors")
    assert backbone.new_adapter(tmp_path / "converted.safetensors").metadata["dropped_audio"] == "zero_fbank"
