"""The embeddings of FAD and KAD: VGGish against numbers of torchvggish, names that cannot be had."""

import pytest
import torch
from random_folders import tiny_backbone
from tunes import RATE, melody

from apa_lightning.errors import InputError
from apa_lightning.metrics import ClapEmbedding, VggishEmbedding, load_embedding
from apa_lightning.metrics.sets import embeddings
from apa_lightning.metrics.sets.embeddings import _VggishNet, vggish_log_mel


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The published state dict's names and shapes, waves for values."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in _VggishNet().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        wave = torch.sin(torch.arange(shape.numel(), dtype=torch.float32) % 9973 * 1.7 + 0.3)
        state[name] = wave.reshape(shape) * (2 / max(1, shape[1:].numel())) ** 0.5
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(state, path)
    yield path
    path.unlink()  # 288 MB


def test_log_mel_equals_torchvggishs():
    """Golden values: torchvggish 0.2 on the same tune."""
    log_mel = vggish_log_mel(melody(1), RATE)
    assert log_mel.shape == (298, 64)
    assert log_mel[[0, 100, 200], [3, 20, 50]].tolist() == pytest.approx([2.3344, -3.2388, -4.6021], abs=1e-3)
    assert float(log_mel[:288].mean()) == pytest.approx(-2.8555, abs=1e-3)


def test_vggish_equals_torchvggish(weights):
    """Golden values: torchvggish 0.2 with these weights, before the last ReLU."""
    embedding = load_embedding("vggish", vggish=weights)
    found = embedding(melody(1), RATE)
    assert found.shape == (3, embedding.dimension)
    assert found[0, :4].tolist() == pytest.approx([32.6638, 6.5085, -1.9265, -20.1624], abs=1e-3)
    assert found.sum(dim=1).tolist() == pytest.approx([-35.8851, -35.8819, -35.8832], abs=1e-3)
    assert embedding(melody(1, seconds=0.5), RATE).shape == (0, 128)
    assert embedding(melody(1, seconds=0.01), RATE).shape == (0, 128)


def test_vggish_in_half_precision_is_used_in_single(weights, monkeypatch):
    half = {name: value.half() for name, value in torch.load(weights).items()}
    monkeypatch.setattr(embeddings, "read_weights", lambda *_: half)
    model = load_embedding("vggish", vggish=weights).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_clap_by_name():
    embedding = load_embedding("clap", clap=tiny_backbone())
    assert isinstance(embedding, ClapEmbedding)
    found = embedding(melody(1), RATE)
    assert found.shape == (1, embedding.dimension)
    assert found.norm(dim=1).tolist() == pytest.approx([1])


def test_embeddings_that_cannot_be_had(tmp_path):
    with pytest.raises(InputError, match=r"vggish-10086976\.pth"):
        load_embedding("vggish")
    with pytest.raises(InputError, match=r"nowhere\.pth does not exist.*vggish-10086976\.pth"):
        load_embedding("vggish", vggish=tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="'pann' is unknown"):
        load_embedding("pann")
    torch.save({"features.0.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="another network"):
        VggishEmbedding(tmp_path / "other.pth")
