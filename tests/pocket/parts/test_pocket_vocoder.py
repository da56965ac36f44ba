"""The pocket vocoder: what it learns from, what it writes, what is measured."""

import math

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import SpeechT5HifiGan

from apa_lightning import InputError
from apa_lightning.audio import log_mel, normalize_level
from apa_lightning.backbones.architectures import POCKET, TINY
from apa_lightning.pocket.assembly import load_frozen, save_half
from apa_lightning.pocket.measures.vocoder import Sources, measure, synthesize, untrained_like
from apa_lightning.pocket.parts.vocoder import PocketVocoder
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.stft_loss import (
    FLOOR,
    PEAK,
    log_spectral_distance,
    multi_resolution_distance,
    power_spectrum,
    stft_loss,
)

SIZES = {"upsample_initial_channel": 32, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]]}
OPTIONS = {"sizes": SIZES, "segment_frames": 16, "segments_per_clip": 2, "fft_sizes": (1024, 256), "warmup_steps": 1}


def tones(count: int, seconds: float = 1.28, first: int = 0) -> list[dict]:
    """Clips of one note with overtones that fades."""
    time = torch.arange(round(seconds * 16_000)) / 16_000
    base = [220 * 2 ** ((i * 5 % 12) / 12) for i in range(first, first + count)]
    return [
        {
            "key": f"clip_{first + i}",
            "waveform": 0.2 * (-time).exp() * sum(torch.sin(2 * math.pi * f * k * time) / k for k in range(1, 5)),
            "num_samples": len(time),
        }
        for i, f in enumerate(base)
    ]


def batch(items: list[dict]) -> dict:
    return {k: torch.stack([i[k] for i in items]) if k == "waveform" else [i[k] for i in items] for k in items[0]}


def clips(count: int) -> Clips:
    rows = batch(tones(count, first=7))
    return Clips(rows["waveform"], rows["key"])


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Record(L.Callback):
    def __init__(self, stop: int | None = None):
        self.stop, self.losses, self.figures = stop, [], []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(float(outputs["loss"]))
        trainer.should_stop = trainer.global_step == self.stop

    def on_validation_end(self, trainer, module):
        self.figures.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(module: PocketVocoder, folder, steps: int, ckpt_path=None, stop=None) -> tuple[Record, L.Trainer]:
    record = Record(stop)
    trainer = L.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        callbacks=[record],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=steps // 2,
        gradient_clip_val=10.0,
    )
    train = DataLoader(tones(4), batch_size=4, collate_fn=batch)
    trainer.fit(module, train, DataLoader(tones(2, first=7), batch_size=2, collate_fn=batch), ckpt_path=ckpt_path)
    return record, trainer


# --- distances --------------------------------------------------------------------------------------------------------


def test_a_sine_reaches_its_amplitude_in_the_spectrum():
    sine = 0.3 * torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)
    assert power_spectrum(sine[None], 1024).amax().sqrt().item() == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize("distance", [log_spectral_distance, multi_resolution_distance])
def test_distances_are_zero_for_the_same_and_blind_to_phase(distance):
    true = noise(2, 16_000)
    assert torch.equal(distance(true, true), torch.zeros(2))
    assert distance(-true, true).max() < 1e-5
    assert distance(0.9 * true, true).max() < distance(0.5 * true, true).min() < distance(0 * true, true).min()


def test_ten_times_louder_is_20_db_away():
    true = noise(1, 16_000)
    true = true / true.abs().amax()
    assert log_spectral_distance(0.1 * true, true).item() == pytest.approx(20, abs=0.1)


def test_what_lies_80_db_below_the_highest_bin_does_not_count():
    sine = torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)[None]
    assert log_spectral_distance(sine + 1e-5 * noise(1, 16_000), sine).item() < 0.05
    assert log_spectral_distance(sine + 0.1 * noise(1, 16_000), sine).item() > 10


def test_the_squared_loss_is_the_log_spectral_distance_where_all_is_audible():
    true, made = noise(2, 16_000), noise(3, 16_000)[1:] * 0.7
    decibel = 20 / math.log(10)
    squared = stft_loss(made, true, (1024,), weight=0, log_norm=2)
    assert squared.item() * decibel == pytest.approx(log_spectral_distance(made, true).mean().item(), rel=1e-2)
    assert squared > stft_loss(made, true, (1024,), weight=0, log_norm=1)


@pytest.mark.parametrize("log_norm", [1, 2])
def test_the_loss_is_finite_in_silence_and_has_a_gradient(log_norm):
    true, made = torch.zeros(1, 4096), (1e-3 * noise(1, 4096)).requires_grad_()
    loss = stft_loss(made, true, (1024, 256), log_norm=log_norm)
    loss.backward()
    assert loss.isfinite() and torch.isfinite(made.grad).all() and made.grad.abs().sum() > 0
    assert float(stft_loss(true, true, (1024,), log_norm=log_norm)) == pytest.approx(0, abs=2e-6)
    assert pytest.approx(5e-5) == FLOOR


# --- training ---------------------------------------------------------------------------------------------------------


def test_segments_are_pieces_of_the_clips_with_their_own_mels(tmp_path):
    module = PocketVocoder(tmp_path, **OPTIONS)
    waveform = normalize_level(noise(3, 20_480), PEAK)
    mels, pieces = module.segments(waveform)
    assert mels.shape == (6, 16, 64) and pieces.shape == (6, 16 * 160)
    for mel, piece in zip(mels, pieces, strict=True):
        row, start = next(
            (i, s) for i in range(3) for s in range(0, 20_480, 160) if torch.equal(waveform[i, s : s + 2560], piece)
        )
        assert torch.equal(mel, log_mel(waveform)[row, 0, start // 160 : start // 160 + 16])
    again, _ = module.segments(waveform)
    assert torch.equal(again, mels), "the same step draws the same"


def test_noise_touches_every_second_segment(tmp_path):
    waveform = noise(3, 20_480)
    plain, _ = PocketVocoder(tmp_path, **OPTIONS).segments(waveform)
    noisy, _ = PocketVocoder(tmp_path, mel_noise=0.1, **OPTIONS).segments(waveform)
    assert torch.equal(noisy[1::2], plain[1::2])
    assert (noisy - plain)[::2].std().item() == pytest.approx(0.1, rel=0.1)


def test_a_new_vocoder_is_neither_silent_nor_clipped(tmp_path):
    module = PocketVocoder(tmp_path, **OPTIONS)
    with torch.no_grad():
        made = module(log_mel(batch(tones(2))["waveform"])[:, 0])
    assert made.shape == (2, 20_480)
    assert 1e-3 < made[:, 800:-800].std() < 0.5


def test_a_fit_learns_and_the_folder_sounds_the_same(tmp_path):
    module = PocketVocoder(tmp_path / "model", learning_rate=3e-3, **OPTIONS)
    record, _ = fit(module, tmp_path, steps=40)
    assert sum(record.losses[-5:]) < 0.6 * sum(record.losses[:5])
    figures = record.figures[-1]
    assert {"val/loss", "val/log_spectral_distance", "val/chroma_similarity"} <= figures.keys()
    assert figures["val/loss"] < record.figures[0]["val/loss"]

    vocoder = SpeechT5HifiGan.from_pretrained(tmp_path / "model" / "vocoder")
    assert vocoder.dtype == torch.float32 and vocoder.config.normalize_before is False
    assert vocoder.config.vocoder_choice == "refined"
    assert list((tmp_path / "model").iterdir()) == [tmp_path / "model" / "vocoder"]
    mels = log_mel(normalize_level(batch(tones(2))["waveform"], PEAK))[:, 0]
    written = synthesize(load_frozen(tmp_path / "model", "vocoder"), mels)
    with torch.no_grad():
        own = module.eval()(mels)
    assert (written - own).abs().max() < 5e-3 * own.abs().max()

    save_half(TINY.build_vae(), tmp_path / "model" / "vae")
    measured = measure(Subject(tmp_path / "model", clips(3), 0, tmp_path / "pictures", clips(2)))
    assert (tmp_path / "pictures" / "vocoder.png").is_file()
    assert (tmp_path / "pictures" / "vocoder_recordings.png").is_file()
    by_name = {figure.name: figure for figure in measured}
    kinds = ("", ", VAE and vocoder", ", real recordings", ", VAE and vocoder, real recordings")
    kinds += tuple(f", refined{kind}" for kind in kinds)
    three = ("multi-resolution STFT distance", "log-spectral distance in dB", "chroma similarity to the source")
    names = {name + kind for name in three for kind in kinds}
    timed = "seconds of one core for 10 s of sound"
    assert set(by_name) == names | {timed, f"{timed}, refined"}
    for figure in measured:
        assert figure.part == "vocoder" and figure.low <= figure.value <= figure.high
        assert bool(figure.target) == ("recordings" not in figure.name and "VAE" not in figure.name)
        assert figure.untrained is not None and "Griffin-Lim" in figure.compared
    distance = by_name["multi-resolution STFT distance"]
    assert distance.value < distance.untrained
    assert by_name["multi-resolution STFT distance, refined"].value < distance.value
    assert distance.target == f"<= {distance.compared['Griffin-Lim']:.3f}"


def test_a_resumed_fit_goes_on_exactly(tmp_path):
    whole, _ = fit(PocketVocoder(tmp_path / "whole", **OPTIONS), tmp_path, steps=4)
    first, trainer = fit(PocketVocoder(tmp_path / "parts", **OPTIONS), tmp_path, steps=4, stop=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = fit(PocketVocoder(tmp_path / "parts", **OPTIONS), tmp_path, steps=4, ckpt_path=tmp_path / "half.ckpt")
    assert first.losses + second.losses == whole.losses


def test_the_seed_decides_the_first_weights_and_leaves_torch_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (PocketVocoder(tmp_path, seed=seed, **OPTIONS).vocoder.conv_pre.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.rand(1), expected)


def test_training_goes_on_from_a_written_vocoder(tmp_path):
    first = PocketVocoder(tmp_path, seed=3, **OPTIONS)
    first.write(tmp_path)
    options = {name: value for name, value in OPTIONS.items() if name != "sizes"}
    again = PocketVocoder(tmp_path, start=tmp_path, **options)
    mels = log_mel(batch(tones(1))["waveform"])[:, 0]
    with torch.no_grad():
        assert (again(mels) - first(mels)).abs().max() < 5e-3 * first(mels).abs().max()
    with pytest.raises(InputError, match=r"model.folder: .*nowhere lacks vocoder"):
        PocketVocoder(tmp_path, start=tmp_path / "nowhere", **options)
    with pytest.raises(InputError, match=r"model.start, model.sizes"):
        PocketVocoder(tmp_path, start=tmp_path, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment_frames": 4, "fft_sizes": (2048,)}, "model.segment_frames: 4 frames are 640 samples.*Give 13"),
        ({"fft_sizes": ()}, "model.fft_sizes: .*at least one"),
        ({"segments_per_clip": 0}, "model.segments_per_clip: 0"),
        ({"mel_noise": -1.0}, "model.mel_noise: .*-1.0"),
        ({"learning_rate": 0.0}, "model.learning_rate: 0.0"),
    ],
)
def test_wrong_settings_are_named(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        PocketVocoder(tmp_path, **options)


def test_clips_shorter_than_a_segment_are_named(tmp_path):
    with pytest.raises(InputError, match=r"data.audio_length_in_s: clips of 10 frames.*16"):
        PocketVocoder(tmp_path, **OPTIONS).segments(noise(1, 1600))


# --- measuring --------------------------------------------------------------------------------------------------------


def test_the_source_itself_is_perfect_and_other_clips_are_not():
    sources = Sources(clips(3))
    assert sources.similarities(sources.waveforms) == pytest.approx([1, 1, 1], abs=1e-6)
    assert max(sources.similarities(sources.waveforms.roll(1, 0))) < 0.9
    assert sources.similarities(torch.zeros(1, sources.waveforms.shape[1])) == [0.0]


def test_the_untrained_vocoder_has_the_same_sizes_and_is_seeded(tmp_path):
    save_half(POCKET.build_vocoder(), tmp_path / "vocoder")
    one, same, other = (untrained_like(tmp_path, seed) for seed in (0, 0, 1))
    assert torch.equal(one.conv_pre.weight, same.conv_pre.weight)
    assert not torch.equal(one.conv_pre.weight, other.conv_pre.weight)
    assert [p.shape for p in one.parameters()] == [p.shape for p in load_frozen(tmp_path, "vocoder").parameters()]
    assert all(p.dtype == torch.float32 for p in load_frozen(tmp_path, "vocoder").parameters())


def test_a_folder_without_a_vocoder_is_named(tmp_path):
    with pytest.raises(InputError, match="vocoder"):
        measure(Subject(tmp_path, clips(1)))
