"""The U-Net's training: the curriculum, dropped conditions, the average that is validated and written."""

from dataclasses import replace

import lightning as L
import pytest
import torch
from audioset_tools import attached
from lightning.pytorch.callbacks import ModelCheckpoint
from pocket_tools import pocket_folder, tone_shards

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.diffusion.losses import inverse_snr
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import MAX_FILE_BYTES, PARTS, sizes
from apa_lightning.pocket.parts.conditioning_gap import denoising_loss, other_labels, sample, spread
from apa_lightning.pocket.parts.phases import Phase, phase_at
from apa_lightning.pocket.parts.unet import PocketUNet
from apa_lightning.utils.rng import generator_for
from datamodules.encoded import EncodedDataModule

PROMPTS = ["a recording of a violin solo", "", "jazz", "Duet, played with cello accompaniment"]
PHASES = (
    Phase(until=3, true_audio=1.0, rates=(1,), text=0.0, audio=1.0, timesteps=(300, 999)),
    Phase(until=6, true_audio=0.0, text=0.5, timesteps=(400, 500)),
    Phase(true_audio=1.0, rates=(4,), text=1.0, timesteps=(0, 299)),
)


class Watch(L.Callback):
    """Notes the U-Net's weights after each step, and the average's in each validation."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.trained.append(flat(module.unet))

    def on_validation_start(self, trainer, module):
        self.validated.append(flat(module.average.module))


def flat(unet) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in unet.parameters()])


def copied(target):
    """A folder of one's own that shares the frozen parts."""
    target.mkdir()
    for part in PARTS:
        if part != "unet":
            (target / part).symlink_to(pocket_folder() / part)
    return target


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("unet-data")
    tone_shards(root, "train", 4, seconds=5.12)
    tone_shards(root, "validation", 2, seconds=5.12, first=4)

    def build(**options) -> EncodedDataModule:
        shards = {f"{split}_shards": f"{root}/{split}-*.tar" for split in ("train", "validation")}
        return EncodedDataModule(root / "cache", windows_per_clip=1, batch_size=2, num_workers=0, **shards, **options)

    return build


def fit(module: PocketUNet, data: EncodedDataModule, root, steps: int, callbacks=(), **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        accelerator="cpu",
        default_root_dir=root,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(root / "checkpoints", save_top_k=-1, every_n_train_steps=4), *callbacks],
    )
    trainer.fit(module, datamodule=data, **options)
    return trainer


def build(folder, **options) -> PocketUNet:
    return PocketUNet(folder, PHASES, **{"learning_rate": 3e-3, "warmup_steps": 2, **options})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, data):
    """A short fit: its folder, the module, the trainer, what was watched and what the U-Net was asked."""
    root = tmp_path_factory.mktemp("unet")
    module, watch, asked = build(copied(root / "model")), Watch(), []

    def noted(unet, scheduler, latents, timesteps, text, loa, draw):
        asked.append((timesteps.clone(), loa.clone(), text))
        return denoising_loss(unet, scheduler, latents, timesteps, text, loa, draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apa_lightning.pocket.parts.unet.denoising_loss", noted)
        trainer = fit(module, data(), root, 8, [watch])
    return root / "model", module, trainer, watch, asked


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(attached(data(), PocketUNet(pocket_folder())).val_dataloader()))


def test_phases_are_obeyed(fitted):
    _, module, _, _, asked = fitted
    assert len(asked) == 8
    nothing = module.streams([""])
    for step, (timesteps, loa, text) in enumerate(asked):
        phase = phase_at(PHASES, step)
        assert phase is PHASES[(step >= 3) + (step >= 6)]
        low, high = phase.timesteps
        assert ((timesteps >= low) & (timesteps <= high)).all()
        assert loa.shape[1] == (256, 8, 16)[PHASES.index(phase)]
        if phase.text == 0:
            assert torch.equal(text.encoded, nothing.encoded.expand_as(text.encoded))
    assert phase_at(PHASES[:2], 1000) is PHASES[1]  # the last phase holds on


@torch.no_grad()
def test_the_loss_falls(fitted, batch):
    folder, module, trainer, _, _ = fitted
    fresh = build(folder)

    def loss(unet) -> float:
        draw = generator_for(0)
        text = module.streams([""] * 2)
        loa, timesteps = pool_tokens(batch["grid"].float()), spread((300, 999), 2, draw)
        latents = sample(batch, draw)
        return float(denoising_loss(unet, module.scheduler, latents, timesteps, text, loa, draw).mean())

    assert loss(module.unet) < 0.9 * loss(fresh.unet)
    gaps = {f"omega_{name}" for name in ("1", "2", "4", "8", "1_low", "1_high")} | {"no_text"}
    expected = {f"val/shuffled_excess_{name}" for name in gaps} | {"val/loss", "val/wrong_text_excess"}
    assert expected <= set(trainer.callback_metrics)
    assert all(trainer.callback_metrics[name].isfinite() for name in expected)


def test_the_average_is_validated_and_written(fitted):
    folder, module, _, watch, _ = fitted
    average = watch.trained[0]
    for n, weights in enumerate(watch.trained[1:], start=1):
        decay = (1 + n) / (10 + n)
        average = decay * average + (1 - decay) * weights
        if n in (3, 7):
            torch.testing.assert_close(watch.validated[n // 4], average)
    assert (average - watch.trained[-1]).abs().max() > 1e-4
    assert {path.name for path in folder.iterdir() if not path.is_symlink()} == {
        "unet",
        "scheduler",
        "model_index.json",
    }
    assert sizes(folder)["unet"] > MAX_FILE_BYTES  # in files that may be shipped
    backbone = AudioLDM2Backbone.from_pretrained(folder)
    assert torch.equal(flat(backbone.unet), flat(module.average.module).half().float())
    resumed = PocketUNet(folder, start=folder)
    assert torch.equal(flat(resumed.unet), flat(backbone.unet))
    # The text streams of training are the pipeline's, the empty prompt's among them.
    for ours, theirs in zip(module.streams(PROMPTS)._rows(), backbone.encode_text(PROMPTS)._rows(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
    # And so is the prediction.
    latents, timesteps = torch.randn(1, *backbone.latent_shape(), generator=generator_for(0)), torch.tensor([500])
    text, noise = backbone.encode_text(["jazz"]), torch.randn(1, *backbone.latent_shape(), generator=generator_for(1))
    noisy = backbone.scheduler.add_noise(latents, noise, timesteps)
    with torch.no_grad():
        expected = (backbone.predict(noisy, timesteps, text) - noise).square().mean()
        got = denoising_loss(
            backbone.unet, module.scheduler, latents, timesteps, text, text.generated, generator_for(1)
        )
    torch.testing.assert_close(got, expected[None])


def test_a_run_resumes_exactly_and_its_checkpoint_holds_no_frozen_part(fitted, data, tmp_path):
    folder, module, trainer, _, _ = fitted
    halfway = next((folder.parent / "checkpoints").glob("*step=4*"))
    saved = torch.load(halfway, weights_only=True)["state_dict"]
    assert {key.split(".")[0] for key in saved} == {"unet", "average"}
    resumed = build(copied(tmp_path / "model"))
    again = fit(resumed, data(), tmp_path, 8, ckpt_path=halfway)
    assert torch.equal(flat(resumed.unet), flat(module.unet))
    assert torch.equal(flat(resumed.average.module), flat(module.average.module))
    assert {k: float(v) for k, v in again.callback_metrics.items() if k.startswith("val/")} == {
        k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
    }


def test_dropped_conditions(fitted, batch):
    module, draw = fitted[1], generator_for(0)
    nothing = module.streams([""] * 2)
    text, loa = module.conditions(batch, Phase(true_audio=0, text=0), draw)
    assert torch.equal(loa, nothing.generated) and torch.equal(text.encoded, nothing.encoded)
    text, loa = module.conditions(batch, Phase(true_audio=0, text=1), draw)
    assert torch.equal(loa, module.streams(batch["prompt"]).generated) and loa is text.generated
    text, loa = module.conditions(batch, Phase(true_audio=1, text=1, audio=0, rates=(2,)), draw)
    assert torch.equal(loa, torch.zeros(2, 64, 160))
    assert torch.equal(text.encoded, module.streams(batch["prompt"]).encoded)
    _, loa = module.conditions(batch, Phase(true_audio=1, audio=1, rates=(2,)), draw)
    assert torch.equal(loa, pool_tokens(batch["grid"].float(), 2))


def test_an_adapter_may_be_trained_with_the_unet(data, batch, tmp_path):
    phase = Phase(true_audio=0, adapted=1, audio=1, text=1, rates=(2,))
    module = PocketUNet(copied(tmp_path / "model"), [phase], warmup_steps=0)
    start = {name: weight.clone() for name, weight in module.adapter.state_dict().items()}
    text, (loa, tokens) = module.conditions(batch, phase, generator_for(0))
    assert torch.equal(loa, text.generated) and torch.equal(tokens[0], pool_tokens(batch["grid"].float(), 2))
    other = {**batch, "prompt_grid": batch["grid"].flip(0)}
    _, (_, tokens) = module.conditions(other, replace(phase, paired=1), generator_for(0))
    assert torch.equal(tokens[0], pool_tokens(other["prompt_grid"].float(), 2))
    assert torch.is_tensor(module.conditions(batch, replace(phase, adapted=0), generator_for(0))[1])

    fit(module, data(), tmp_path, 2)
    trained = module.adapter.state_dict()
    assert all(not torch.equal(trained[name], weight) for name, weight in start.items())
    backbone = AudioLDM2Backbone.from_pretrained(tmp_path / "model")  # the U-Net is written without the adapter
    assert torch.equal(flat(backbone.unet), flat(module.average.module).half().float())


def test_helpers():
    assert other_labels([["a"], ["a"], ["b"]]) == [2, 2, 0]
    assert other_labels([["a"], ["a"]]) is None
    timesteps = spread((350, 950), 60, generator_for(0))
    assert timesteps.min() >= 350 and timesteps.max() <= 950
    assert torch.histc(timesteps.float(), 6, 350, 951).tolist() == [10] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": 0}, "phases.until: 0"),
        ({"true_audio": 1.5}, "phases.true_audio: 1.5"),
        ({"adapted": 2}, "phases.adapted: 2"),
        ({"text": -1}, "phases.text: -1"),
        ({"audio": 2}, "phases.audio: 2"),
        ({"rates": ()}, "phases.rates: empty"),
        ({"rates": (3,)}, "phases.rates: 3"),
        ({"timesteps": (5, 1000)}, r"phases.timesteps: \[5, 1000\]"),
        ({"timesteps": (9, 5)}, r"phases.timesteps: \[9, 5\]"),
    ],
)
def test_impossible_phases_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Phase(**options)


def test_mistakes_are_named(tmp_path):
    for phases, message in (
        ((), "phases: empty"),
        ((Phase(), Phase()), "until: null before the last"),
        ((Phase(until=5), Phase(until=5)), r"until: \[5, 5\]"),
    ):
        with pytest.raises(InputError, match=message):
            PocketUNet(pocket_folder(), phases)
    with pytest.raises(InputError, match=r"ema_decay: 1\.0"):
        PocketUNet(pocket_folder(), ema_decay=1.0)
    with pytest.raises(InputError, match=r"lacks projection_model, language_model.*configs/pocket/loa.yaml"):
        PocketUNet(tmp_path)
    with pytest.raises(InputError, match=r"lacks unet.*configs/pocket/unet.yaml"):
        PocketUNet(pocket_folder(), start=tmp_path)


def test_what_noise_hides_counts_more():
    """1 / SNR between its limits, and in a step relative to the mean over the phase's timesteps."""
    kept = torch.tensor([0.9, 0.5, 0.1, 0.01, 0.0001])
    assert inverse_snr(kept, 250).tolist() == pytest.approx([1, 1, 9, 99, 250])
    assert inverse_snr(kept, 1).tolist() == [1] * 5


@pytest.mark.parametrize("most", [1.0, 250.0])
def test_the_loss_of_a_step_is_weighted(data, batch, tmp_path, most, monkeypatch):
    module = PocketUNet(copied(tmp_path / "model"), [Phase(timesteps=(500, 999))], max_loss_weight=most)
    noted = []

    def noting(unet, scheduler, latents, timesteps, text, loa, draw):
        losses = torch.linspace(1, 2, len(latents))
        noted.append((timesteps, losses))
        return losses

    monkeypatch.setattr("apa_lightning.pocket.parts.unet.denoising_loss", noting)
    monkeypatch.setattr(PocketUNet, "log", lambda *a, **k: None)
    monkeypatch.setattr(PocketUNet, "global_step", 0)
    monkeypatch.setattr(PocketUNet, "global_rank", 0)
    got = float(module.training_step(batch, 0))
    (timesteps, losses), kept = noted[0], module.scheduler.alphas_cumprod
    weights = ((1 - kept) / kept).clamp(1, most)
    assert got == pytest.approx(float((weights[timesteps] / weights[500:].mean() * losses).mean()))
    with pytest.raises(InputError, match=r"model\.max_loss_weight: 0\.5"):
        PocketUNet(tmp_path / "model", max_loss_weight=0.5)
