"""AudioMAE from every kind of source."""

import shutil

import pytest
import torch
from random_folders import tiny_backbone
from safetensors.torch import load_file, save_file

from apa_lightning.audio import fbank
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.errors import InputError


@pytest.fixture()
def folder(tmp_path):
    return shutil.copytree(tiny_backbone() / "audio_encoder", tmp_path / "encoder")


def test_grid_of_a_waveform(audio_encoder):
    waveform = torch.randn(2, 163_840) * 0.1
    grid = audio_encoder(waveform)
    assert grid.shape == (2, 64, 8, audio_encoder.embed_dim)
    tokens = audio_encoder.encoder.forward_features(fbank(waveform))
    assert torch.equal(grid[0, 3, 2], tokens[0, 1 + 3 * 8 + 2])  # time-major, class token dropped
    assert not any(p.requires_grad for p in audio_encoder.parameters())
    assert not audio_encoder.train().encoder.training


def test_short_and_long_clips(audio_encoder):
    waveform = torch.randn(1, 200_000) * 0.1
    assert torch.equal(audio_encoder(waveform[:, : 163_840 + 400]), audio_encoder(waveform[:, : 163_840 + 400]))
    assert audio_encoder(waveform).shape == audio_encoder(waveform[:, :50_000]).shape


def test_mean_of_the_last_three_blocks(audio_encoder):
    banks = fbank(torch.randn(1, 163_840))
    encoder, states = audio_encoder.encoder, []
    hooks = [block.register_forward_hook(lambda _, __, out: states.append(out)) for block in encoder.blocks[-3:]]
    encoder.forward_features(banks)
    for hook in hooks:
        hook.remove()
    expected = torch.stack([encoder.norm(state) for state in states]).mean(0)
    assert torch.allclose(AudioMAE(encoder, "mean_last_three").encode_fbank(banks), expected, atol=1e-6)


@pytest.mark.parametrize("names", ["timm", "published"])
def test_weight_files_of_both_namings(folder, tmp_path, names, audio_encoder):
    weights = load_file(folder / "model.safetensors")
    if names == "published":  # as pretrained.pth: a wrapper, "model." names, and the decoder beside the encoder
        weights = {
            "model": {f"model.{key}": value for key, value in weights.items()}
            | {"model.decoder_pred.weight": torch.ones(2, 2), "model.mask_token": torch.ones(1)}
        }
        torch.save(weights, tmp_path / "pretrained.pth")
        path = tmp_path / "pretrained.pth"
    else:
        path = folder / "model.safetensors"
    loaded = AudioMAE.from_pretrained(path, num_heads=4)
    waveform = torch.randn(1, 163_840)
    assert torch.equal(loaded(waveform), audio_encoder(waveform))


def test_hub_layout_with_a_pickled_state_dict(folder, audio_encoder):
    """As gaunernst/vit_base_patch16_1024_128.audiomae_as2m: config.json and pytorch_model.bin."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    waveform = torch.randn(1, 163_840)
    assert torch.equal(AudioMAE.from_pretrained(folder)(waveform), audio_encoder(waveform))


def test_silence_is_a_zero_filter_bank(audio_encoder):
    expected = audio_encoder.encoder.forward_features(torch.zeros(1, 1, 1024, 128))[:, 1:]
    assert torch.equal(audio_encoder.null().flatten(1, 2), expected)


def test_refusals(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"audio_encoder: .*nowhere"):
        AudioMAE.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match="loa_layers"):
        AudioMAE.from_pretrained(folder, "all")
    weights = load_file(folder / "model.safetensors")
    for change, message in [
        (lambda w: w.pop("norm.weight"), r"norm\.weight"),
        (lambda w: w.pop("pos_embed"), "holds no AudioMAE encoder"),
        (lambda w: w.update(extra=torch.ones(1)), "extra"),
    ]:
        changed = dict(weights)
        change(changed)
        save_file(changed, tmp_path / "bad.safetensors")
        with pytest.raises(InputError, match=message):
            AudioMAE.from_pretrained(tmp_path / "bad.safetensors", num_heads=4)
    (folder / "model.safetensors").write_bytes(b"0123")
    with pytest.raises(InputError, match="cannot be loaded by timm"):
        AudioMAE.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        AudioMAE.from_pretrained(folder)
