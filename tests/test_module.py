"""The LightningModule: what is trained, what stays frozen, what a checkpoint holds."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from random_folders import tiny_parts
from torch.utils.data import DataLoader, Dataset

from apa_lightning import AudioPromptModule, InputError
from apa_lightning.backbones import window_encoder
from apa_lightning.conditioning.dropout import ConditionDropout, PoolingRates


class Clips(Dataset):
    """Synthetic clips of one window each."""

    def __init__(self, count: int = 4, samples: int = 163_840):
        draw = torch.Generator().manual_seed(0)
        self.waveforms = 0.2 * torch.randn(count, samples, generator=draw)

    def __len__(self):
        return len(self.waveforms)

    def __getitem__(self, index):
        return {
            "key": f"clip{index}",
            "waveform": self.waveforms[index],
            "prompt": f"a recording of instrument {index}",
            "labels": [],
        }


def loader(**knobs) -> DataLoader:
    def collate(items):
        return {
            key: torch.stack([i[key] for i in items]) if key == "waveform" else [i[key] for i in items]
            for key in items[0]
        }

    return DataLoader(Clips(**knobs), batch_size=2, collate_fn=collate)


def trainer(tmp_path, **knobs) -> Trainer:
    settings = {
        "max_steps": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "gradient_clip_val": 1.0,
        "default_root_dir": tmp_path,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**settings | knobs)


def build(**options) -> AudioPromptModule:
    module = AudioPromptModule(**tiny_parts(), **options)
    module.configure_model()
    return module


class Losses(Callback):
    def __init__(self):
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


def test_training_moves_the_adapter_alone(tmp_path):
    module = build()
    frozen = {name: value.clone() for name, value in module.state_dict().items() if not name.startswith("adapter.")}
    before = module.adapter.digest()
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        f"adapter.{key}" for key in module.adapter.state_dict()
    }
    trainer(tmp_path).fit(module, loader())
    assert module.adapter.digest() != before
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    assert not [name for name, p in module.named_parameters() if p.grad is not None and not name.startswith("adapter.")]
    assert not [name for name, part in module.backbone.named_modules() if part.training]


def test_the_loss_of_a_fixed_batch_falls():
    module = build(pooling_rates=PoolingRates([2]), condition_dropout=ConditionDropout(text=0, audio=0, both=0))
    batch = {key: value[:1] for key, value in next(iter(loader())).items()}
    optimizer = torch.optim.AdamW(module.adapter.parameters(), lr=0.1)
    text, grid = module.backbone.encode_text(batch["prompt"]), module.audio_encoder(batch["waveform"])
    from apa_lightning.conditioning.dropout import audio_tokens
    from apa_lightning.utils.rng import generator_for

    loa = audio_tokens(grid, torch.zeros(1, dtype=torch.bool), 2)
    latents = module.window_encoder().target_of(batch, generator_for("latents"))
    losses = []
    for _ in range(40):
        loss = module._losses(latents, text, loa, generator_for("noise"))[0].mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.96 * losses[0]
    assert losses[-1] < min(losses[:10])


def test_same_seed_same_losses_whatever_the_global_state(tmp_path):
    def losses(seed: int, global_seed: int) -> list[float]:
        seed_everything(global_seed)
        record = Losses()
        trainer(tmp_path, callbacks=[record]).fit(build(seed=seed), loader())
        return record.values

    first = losses(0, 1)
    assert losses(0, 2) == first
    assert losses(1, 1) != first


def test_the_audio_encoder_takes_the_audio_prompt_and_the_vae_the_target(tmp_path):
    class Prompts(Callback):
        """Gives each clip an audio prompt: itself, or the other clip of the batch."""

        def __init__(self, shift: int):
            self.shift = shift

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            batch["prompt_waveform"] = batch["waveform"].roll(self.shift, dims=0)

        def on_validation_batch_start(self, *arguments):
            self.on_train_batch_start(*arguments)

    module = build(pooling_rates=PoolingRates([1]), optimizer=partial(torch.optim.SGD, lr=0.0))

    def losses(*callbacks) -> dict[str, float]:
        record = Losses()
        run = trainer(tmp_path, callbacks=[*callbacks, record], max_steps=1, val_check_interval=1)
        run.fit(module, loader(count=2), loader(count=2))
        found = {kind: float(run.callback_metrics[f"val/loss_{kind}_omega_1"]) for kind in ("matched", "shuffled")}
        return found | {"fit": record.values[0]}

    plain, other = losses(), losses(Prompts(1))
    assert losses(Prompts(0)) == plain and other["fit"] != plain["fit"]
    assert (other["matched"], other["shuffled"]) == (plain["shuffled"], plain["matched"])


def test_an_edit_in_between_leaves_training_as_it_was(tmp_path):
    class EditInBetween(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            module.editor().edit(
                (Clips().waveforms[0], 16_000), prompt="x", num_inference_steps=1, ap_scale=0.1, progress=False
            )

    def losses(*callbacks) -> list[float]:
        record = Losses()
        trainer(tmp_path, callbacks=[record, *callbacks]).fit(build(), loader())
        return record.values

    assert losses(EditInBetween()) == losses()


def test_every_choice_of_the_paper_against_code_table_trains(tmp_path):
    for settings in [
        {"condition_dropout": ConditionDropout(scheme="independent")},
        {"dropped_audio": "zero_fbank"},
        {"loa_layers": "mean_last_three"},
        {"gradient_checkpointing": True},
        {"pooling_rates": PoolingRates([4])},
    ]:
        module = build(**settings)
        trainer(tmp_path, max_steps=1).fit(module, loader())
        for name, value in settings.items():
            if name in ("dropped_audio", "loa_layers"):
                assert module.adapter.metadata[name] == value


def test_pooling_rates_must_divide_the_grid_of_the_encoder(tmp_path):
    trainer(tmp_path, max_steps=1).fit(build(pooling_rates=PoolingRates([64])), loader())  # one token
    with pytest.raises(InputError, match=r"^pooling_rates.rates: 3; choose one of 1, 2, 4, 8, 16, 32, 64: "):
        trainer(tmp_path, max_steps=1).fit(build(pooling_rates=PoolingRates([1, 3])), loader())


def test_half_precision_training(tmp_path):
    module = build(half_backbone=True)
    trainer(tmp_path, max_steps=2, precision="bf16-mixed").fit(module, loader())
    assert module.backbone.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in module.adapter.parameters())


def test_validation_logs_matched_and_shuffled_losses(tmp_path):
    module = build(pooling_rates=PoolingRates([1, 8]))
    results = [trainer(tmp_path).validate(module, loader(), verbose=False)[0] for _ in range(2)]
    assert set(results[0]) == {
        "val/loss",
        *(f"val/loss_{kind}_omega_{omega}" for kind in ("matched", "shuffled") for omega in (1, 8)),
    }
    assert results[0] == results[1]  # the draws repeat


def test_a_later_validation_encodes_nothing_again(tmp_path, monkeypatch):
    def run() -> tuple[list[dict[str, float]], int]:
        """The losses of two validations of an adapter that does not learn, and how often the VAE and AudioMAE were run."""
        optimizer, logged, calls = partial(torch.optim.SGD, lr=0.0), [], []
        module = AudioPromptModule(**tiny_parts(32), optimizer=optimizer)
        module.configure_model()

        class Validations(Callback):
            def on_validation_end(self, trainer, module):
                logged.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")})

        for part in (module.backbone.vae.encoder, module.audio_encoder):
            part.register_forward_hook(lambda *_: calls.append(1))
        clips = loader(count=2, samples=module.backbone.window_samples)
        trainer(tmp_path, callbacks=[Validations()], max_steps=2, val_check_interval=1).fit(module, clips, clips)
        return logged, len(calls)

    (first, second), calls = run()
    monkeypatch.setattr(window_encoder, "KEPT_BYTES", 0)
    expected, calls_without = run()
    assert [first, second] == expected and first == second
    assert (calls, calls_without) == (2 * (2 + 1), 2 * (2 + 2))


def test_a_checkpoint_holds_the_adapter_alone_and_loads_strictly(tmp_path):
    module = build()
    run = trainer(tmp_path)
    run.fit(module, loader())
    path = tmp_path / "a.ckpt"
    run.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    assert set(content["state_dict"]) == {f"adapter.{key}" for key in module.adapter.state_dict()}
    assert path.stat().st_size < 20 * sum(p.numel() for p in module.adapter.parameters()) + 100_000

    fresh = build()
    trainer(tmp_path).validate(fresh, loader(), ckpt_path=path, verbose=False)
    assert fresh.adapter.digest() == module.adapter.digest()

    for change, message in [
        (lambda s: s.pop(next(iter(s))), "the checkpoint lacks 1 of 8 weights"),
        (lambda s: s.update({"adapter.other": torch.ones(1)}), "holds 1 weights that this backbone lacks, first other"),
        (lambda s: next(iter(s.values())).fill_(float("nan")), "contains NaN"),
    ]:
        damaged = torch.load(path, weights_only=True)
        change(damaged["state_dict"])
        torch.save(damaged, tmp_path / "damaged.ckpt")
        with pytest.raises(InputError, match=message):
            trainer(tmp_path).validate(build(), loader(), ckpt_path=tmp_path / "damaged.ckpt", verbose=False)


def test_a_checkpoint_of_other_conventions_is_refused(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(build(loa_layers="mean_last_three"), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"--model\.loa_layers mean_last_three"):
        trainer(tmp_path).fit(build(), loader(), ckpt_path=tmp_path / "a.ckpt")


def test_an_adapter_file_brings_its_conventions(tmp_path):
    module = build(loa_layers="mean_last_three", dropped_audio="zero_fbank")
    module.adapter.save(tmp_path / "a.safetensors")
    loaded = build(adapter=str(tmp_path / "a.safetensors"))
    assert (loaded.audio_encoder.loa_layers, loaded.dropped_audio) == ("mean_last_three", "zero_fbank")
    with pytest.raises(InputError, match=r"model\.loa_layers: last, but"):
        build(adapter=str(tmp_path / "a.safetensors"), loa_layers="last")


def test_padding_is_not_heard(tmp_path):
    """A ten-second clip in a window of 10.24 s: the encoder gets zero *frames* after it, as the published code."""
    from apa_lightning.audio import fbank

    module = build()
    clip = Clips(1).waveforms[:, :160_000] + 0.1  # with an offset, which padding must not turn into a step
    padded = torch.nn.functional.pad(clip, (0, 3_840))
    batch = {"waveform": padded, "prompt": ["x"], "num_samples": [160_000]}
    expected = module.audio_encoder._grid(fbank(clip))
    assert torch.equal(module.window_encoder().grid_of(batch), expected)
    assert not torch.allclose(
        module.window_encoder().grid_of({"waveform": padded, "prompt": ["x"]}), expected, atol=1e-3
    )
    quiet = module.window_encoder().target_of(batch, torch.Generator().manual_seed(0))
    shifted = module.window_encoder().target_of(
        {**batch, "waveform": torch.nn.functional.pad(clip - 0.1, (0, 3_840))}, torch.Generator().manual_seed(0)
    )
    assert torch.allclose(quiet, shifted, atol=1e-3)


def test_settings_that_cannot_train(tmp_path):
    with pytest.raises(InputError, match=r"model\.ap_scale: 0"):
        trainer(tmp_path).fit(build(ap_scale=0.0), loader())
    with pytest.raises(InputError, match=r"needs --trainer\.precision bf16-mixed"):
        trainer(tmp_path).fit(build(half_backbone=True), loader())


def test_wrong_parts_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.audio_length_in_s: clips of 5\.00 s do not fit"):
        trainer(tmp_path).fit(build(), loader(samples=80_000))
    with pytest.raises(FileNotFoundError, match="adapter: nowhere"):
        build(adapter="nowhere.safetensors")


def test_training_starts_from_an_adapter_file(tmp_path, backbone):
    adapter = backbone.new_adapter()
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.mul_(2)
    adapter.export_published(tmp_path / "pytorch_model.bin")
    module = build(adapter=str(tmp_path / "pytorch_model.bin"))
    assert module.adapter.digest() == adapter.digest()
    assert module.dropped_audio == "zero_fbank"  # the published code's convention comes with its checkpoint
    assert module.editor().unconditional_audio == "zero_fbank"
    module.backbone.set_scale(0.5)


def test_noisy_timesteps_count_more_where_losses_are_weighted(monkeypatch):
    """The training loss is the weighted mean of the items' losses, in the scale of the plain one."""
    plain, weighted = (build(loss_weighting=name).objective.args[0].weights for name in ("uniform", "inverse_snr"))
    assert plain.tolist() == [1] * 1000
    assert weighted.mean() == pytest.approx(1, abs=1e-5)
    assert weighted[999] > 20 * weighted[500] > 20 * weighted[0]
    with pytest.raises(InputError, match="max_loss_weight"):
        build(loss_weighting="inverse_snr", max_loss_weight=0.5)
    with pytest.raises(InputError, match="loss_weighting: 'loud' is unknown"):
        build(loss_weighting="loud")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_one_kernel_updates_all_weights_also_where_gradients_are_clipped(tmp_path, precision):
    module = build(optimizer=partial(torch.optim.AdamW, lr=0.1))
    trainer(tmp_path, precision=precision, gradient_clip_val=1e-9, max_steps=1, limit_val_batches=0).fit(
        module, loader()
    )
    (optimizer,) = module.trainer.optimizers
    assert optimizer.param_groups[0]["fused"] and optimizer.state
    moments = torch.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
    assert moments.norm() <= 1.01e-10  # of the clipped gradients: 0.1 of their norm
