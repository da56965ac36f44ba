"""The pocket VAE: what it learns from, what it writes, what is measured."""

import json
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from diffusers import AutoencoderKL
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from apa_lightning import InputError
from apa_lightning.audio import log_mel, normalize_level
from apa_lightning.backbones.architectures import POCKET, TINY
from apa_lightning.pocket.assembly import load_frozen, untrained
from apa_lightning.pocket.measures import vae as measure_vae
from apa_lightning.pocket.measures.vae import measure, shuffled_pairs
from apa_lightning.pocket.parts import vae as vae_module
from apa_lightning.pocket.parts.vae import PocketVAE, kl_per_number, l1_per_clip, leveled_log_mel, random_crops
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject

KINDS = ("solo", "duet", "genre", "solo")


def tones(count: int, seconds: float = 1.28, first: int = 0) -> list[dict]:
    """Clips of a note with overtones, then another."""
    time = torch.arange(round(seconds * 16_000)) / 16_000
    items = []
    for i in range(first, first + count):
        pitch = 220 * 2 ** ((i * 5 % 12 + 2.0 * (time > seconds / 2)) / 12)
        partials = sum(torch.sin(2 * math.pi * pitch * k * time) / k for k in range(1, 5))
        items.append(
            {
                "key": f"clip_{i}",
                "waveform": 0.2 * partials * (1 + i % 3),
                "prompt": f"tone {i}",
                "labels": ["Piano"],
                "num_samples": len(time),
                "metadata": {"kind": KINDS[i % 4]},
            }
        )
    return items


def batch(items: list[dict]) -> dict:
    return {k: torch.stack([i[k] for i in items]) if k == "waveform" else [i[k] for i in items] for k in items[0]}


def clips(count: int, **options) -> Clips:
    rows = batch(tones(count, **options))
    return Clips(rows["waveform"], rows["key"], rows["prompt"], rows["labels"], rows["metadata"])


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    """The smallest VAE in place of the shipped one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae_module, "POCKET", TINY)
        yield


class Losses(L.Callback):
    def __init__(self):
        self.train: list[float] = []
        self.val: list[dict] = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.train.append(float(outputs["loss"]))

    def on_validation_end(self, trainer, module):
        self.val.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(module: PocketVAE, folder, steps: int, ckpt_path=None, stop: int | None = None, **options) -> tuple:
    """A fit that is planned for ``steps`` steps and ends after ``stop`` of them."""
    losses = Losses()
    trainer = L.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[losses, *options.pop("callbacks", [])],
        **{"logger": False, "val_check_interval": steps, "gradient_clip_val": 1.0} | options,
    )
    data = [DataLoader(tones(8, first=f), batch_size=4, collate_fn=batch) for f in (0, 8)]
    trainer.fit(module, *data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    """A short fit on tones."""
    folder = tmp_path_factory.mktemp("vae")
    module = PocketVAE(folder / "model", learning_rate=4e-3, warmup_steps=5, crop_frames=32)
    logger = TensorBoardLogger(folder)
    _, losses = fit(module, folder, 40, val_check_interval=20, logger=logger)
    return SimpleNamespace(module=module.eval(), folder=folder / "model", losses=losses, logs=logger.log_dir)


# --- training -------------------------------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    start, end = trained.losses.train[:5], trained.losses.train[-5:]
    assert sum(end) < 0.6 * sum(start)
    first, last = trained.losses.val
    assert last["val/loss"] < first["val/loss"]
    assert {"val/l1_solo", "val/l1_backing", "val/posterior_std", "val/latent_std", "train/l1", "train/kl"} <= set(last)
    both = (last["val/l1_solo"] + last["val/l1_backing"]) / 2  # half of these clips are solos
    assert last["val/loss"] == pytest.approx(both, abs=1e-4)


def test_latents_are_precise_from_the_first_step(tmp_path):
    module = PocketVAE(tmp_path)
    with torch.no_grad():
        mel = leveled_log_mel(batch(tones(4)))
        posterior = module.vae.encode(mel).latent_dist
        assert posterior.std.mean() < 0.3 * posterior.mean.std()
        # the first guess is about as loud as music
        assert module.vae.decode(posterior.mean).sample.mean() == pytest.approx(-5, abs=1.5)


def test_pictures_go_to_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.logs)).Reload()
    assert [image.step for image in events.Images("val/source_above_reconstruction")] == [20, 40]


def test_the_loss_is_l1_and_a_little_kl():
    mel = torch.zeros(2, 1, 8, 64)
    assert l1_per_clip(mel + torch.tensor([1.0, -3.0])[:, None, None, None], mel).tolist() == [1, 3]
    mean, logvar = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_per_number(mean, logvar), expected)


def test_the_kl_weight_counts(tmp_path):
    def loss(kl_weight: float) -> tuple[float, dict]:
        module, logged = PocketVAE(tmp_path, kl_weight=kl_weight), {}
        module._trainer = SimpleNamespace(global_step=0, global_rank=0)
        module.draws = lambda purpose: torch.Generator().manual_seed(0)
        module.log = lambda name, value, **_: logged.update({name: float(value.detach())})
        module.log_dict = lambda values, **_: logged.update({k: float(v.detach()) for k, v in values.items()})
        return float(module.training_step(batch(tones(2)), 0).detach()), logged

    plain, logged = loss(0.0)
    weighed, _ = loss(0.5)
    assert plain == pytest.approx(logged["train/l1"])
    assert weighed == pytest.approx(logged["train/l1"] + 0.5 * logged["train/kl"], rel=1e-5)


def test_crops_are_places_of_the_clip():
    mel = torch.arange(100.0)[None, None, :, None].expand(50, 1, 100, 64)
    crops = random_crops(mel, 32, torch.Generator().manual_seed(0))
    starts = crops[:, 0, 0, 0]
    assert crops.shape == (50, 1, 32, 64) and torch.equal(crops[:, 0, :, 0], starts[:, None] + torch.arange(32.0))
    assert len(set(starts.tolist())) > 20 and starts.min() < 10 and starts.max() > 58
    assert torch.equal(crops, random_crops(mel, 32, torch.Generator().manual_seed(0)))
    assert torch.equal(random_crops(mel, 100, torch.Generator()), mel)


def test_it_hears_what_the_backbone_hears():
    quiet = tones(1)[0]["waveform"]
    padded = torch.cat([quiet + 0.1, torch.zeros(3200)])[None]
    heard = leveled_log_mel({"waveform": padded, "num_samples": [len(quiet)]})
    torch.testing.assert_close(heard, log_mel(normalize_level(padded, lengths=[len(quiet)])))
    assert heard[0, 0, -10:].max() == pytest.approx(math.log(1e-5))  # padding stays silent


def test_runs_resume_exactly(tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "two.ckpt")

    whole = PocketVAE(tmp_path / "a", crop_frames=16)
    fit(whole, tmp_path, 4, callbacks=[Save()], val_check_interval=2)
    resumed = PocketVAE(tmp_path / "b", crop_frames=16, seed=0)
    fit(resumed, tmp_path, 4, ckpt_path=tmp_path / "two.ckpt", val_check_interval=2)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"crop_frames": 0}, r"model\.crop_frames: 0; it must be a positive multiple of 4"),
        ({"crop_frames": 30}, r"model\.crop_frames: 30"),
        ({"kl_weight": -1.0}, r"model\.kl_weight: -1\.0; it must not be negative"),
        ({"learning_rate": 2.0}, r"model\.learning_rate"),
    ],
)
def test_wrong_settings(tmp_path, knobs, message):
    with pytest.raises(InputError, match=message):
        PocketVAE(tmp_path, **knobs)


def test_clips_shorter_than_a_crop():
    with pytest.raises(InputError, match=r"model\.crop_frames: 128, but clips have 100 frames\. Lower it, or raise"):
        random_crops(torch.zeros(1, 1, 100, 64), 128, torch.Generator())


# --- the written folder ---------------------------------------------------------------------------------------------


def test_the_written_vae_is_the_trained_one(trained):
    vae = AutoencoderKL.from_pretrained(trained.folder, subfolder="vae", torch_dtype=torch.float32)
    mel = leveled_log_mel(batch(tones(2, first=20)))
    with torch.no_grad():
        here, there = (v.decode(v.encode(mel).latent_dist.mean).sample for v in (trained.module.vae, vae))
    assert (here - there).abs().mean() < 0.01 and (here - there).abs().max() < 0.2  # half precision


def test_the_shipped_size():
    weights = sum(weight.numel() for weight in POCKET.build_vae().parameters())
    assert 2 * weights < 1.5e6  # bytes in half precision


def test_scaled_latents_have_unit_deviation(trained):
    vae = load_frozen(trained.folder, "vae")
    heard = leveled_log_mel(batch(tones(8, first=8)))  # the validation clips
    posterior = vae.encode(heard).latent_dist
    latents = posterior.sample(torch.Generator().manual_seed(0)) * vae.config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, abs=0.02)
    config = json.loads((trained.folder / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == pytest.approx(1 / float(trained.module.latent_std), abs=1e-5)
    assert config["scaling_factor"] != 0.4  # the architecture's


# --- what is measured -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def figures(trained, tmp_path_factory):
    pictures = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure_vae, "CHROMA_CLIPS", 2)
        found = measure(Subject(trained.folder, clips(8, first=8), 0, pictures, clips(1, first=30)))
        again = measure(Subject(trained.folder, clips(8, first=8)))
    return SimpleNamespace(by_name={f.name: f for f in found}, again=again, pictures=pictures)


def test_figures(figures):
    by_name = figures.by_name
    solo, backing = by_name["log-mel L1, solo"], by_name["log-mel L1, with backing"]
    assert (solo.clips, solo.target, backing.clips, backing.target) == (4, "<= 0.35", 4, "<= 0.25")
    for figure in (solo, backing, by_name["log-mel L1, real recordings"]):
        assert figure.part == "vae" and figure.low <= figure.value <= figure.high
        assert figure.value < figure.untrained and "mean spectrum of the clips" in figure.compared
    chroma_figure = by_name["chroma similarity through VAE and Griffin-Lim"]
    assert chroma_figure.clips == 2 and chroma_figure.target == ">= 0.80"
    assert set(chroma_figure.compared) == {"Griffin-Lim on true mels", "shuffled pairs"}
    assert chroma_figure.compared["Griffin-Lim on true mels"] > chroma_figure.compared["shuffled pairs"]
    assert by_name["chroma similarity of real recordings through VAE and Griffin-Lim"].target == ""
    assert by_name["deviation of the scaled latents"].value == pytest.approx(1, abs=0.2)


def test_figures_repeat(figures):
    assert figures.again == [figures.by_name[figure.name] for figure in figures.again]
    assert not any("recordings" in figure.name for figure in figures.again)


def test_shuffled_pairs_are_of_different_melodies():
    def named(*melodies: str) -> Clips:
        keys = [str(i) for i in range(len(melodies))]
        return Clips(torch.zeros(len(melodies), 8), keys, metadata=[{"melody": melody} for melody in melodies])

    assert shuffled_pairs(named("a", "a", "b")) == [(0, 2), (1, 2), (2, 0)]
    assert shuffled_pairs(named("a", "a")) == shuffled_pairs(named("a")) == []
    assert shuffled_pairs(Clips(torch.zeros(2, 8), ["x", "y"])) == [(0, 1), (1, 0)]  # recordings


def test_pictures(figures):
    for name in ("vae.png", "vae_recordings.png"):
        assert (figures.pictures / name).read_bytes().startswith(b"\x89PNG")


def test_l1_is_that_of_the_written_vae(trained, figures):
    vae, solos = load_frozen(trained.folder, "vae"), clips(8, first=8).where(lambda fields: fields["kind"] == "solo")
    mel = leveled_log_mel({"waveform": solos.waveform})
    expected = (vae.decode(vae.encode(mel).latent_dist.mean).sample - mel).abs().mean()
    assert figures.by_name["log-mel L1, solo"].value == pytest.approx(float(expected), rel=1e-4)


def test_the_untrained_vae_has_the_same_sizes(trained):
    one, other, third = (
        untrained(trained.folder, "vae", 0),
        untrained(trained.folder, "vae", 0),
        untrained(trained.folder, "vae", 1),
    )
    shapes = {key: value.shape for key, value in load_frozen(trained.folder, "vae").state_dict().items()}
    assert {key: value.shape for key, value in one.state_dict().items()} == shapes
    key = "encoder.conv_in.weight"
    assert torch.equal(one.state_dict()[key], other.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], third.state_dict()[key])


def test_a_folder_without_a_vae(tmp_path):
    with pytest.raises(InputError, match=r"lacks vae.*configs/pocket/vae\.yaml"):
        measure(Subject(tmp_path, clips(2)))
