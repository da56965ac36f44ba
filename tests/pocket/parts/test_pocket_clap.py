"""The pocket CLAP: features as the extractor's, soft pairs, what it writes and who reads it."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from diffusers import AudioLDM2Pipeline
from pocket_tools import batch, pocket_folder, tones, with_untrained_unet
from torch.utils.data import DataLoader

from apa_lightning import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.measures.clap import embedders, measure, recall
from apa_lightning.pocket.parts.clap import (
    PocketClap,
    clap_features,
    contrastive_loss,
    feature_extractor,
    same_meaning,
)
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text.prompts import Meaning


def fit(module: PocketClap, steps: int, count: int = 16, ckpt_path=None, callbacks=(), **options) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        val_check_interval=steps,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )
    loaders = (DataLoader(tones(n), batch_size=8, collate_fn=batch) for n in (count, 8))
    trainer.fit(module, *loaders, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("clap")
    module = PocketClap(folder, learning_rate=2e-3, warmup_steps=5)
    losses = Losses()
    trainer = fit(module, 20, callbacks=[losses])
    return SimpleNamespace(module=module.eval(), folder=folder, trainer=trainer, losses=losses.train)


class Losses(L.Callback):
    def __init__(self):
        self.train = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.train.append(float(outputs["loss"]))


def test_mixed_precision_clips_gradients(tmp_path):
    """The recipe's precision: Lightning refuses to clip the gradients of a fused optimizer there."""
    trainer = fit(PocketClap(tmp_path), 1, count=8, precision="bf16-mixed", gradient_clip_val=1.0)
    assert trainer.global_step == 1 and not trainer.optimizers[0].defaults["fused"]


# --- features -------------------------------------------------------------------------------------------------------


def test_features_are_the_extractors():
    extractor = feature_extractor()
    waveform = torch.stack([clip["waveform"][:80_000] for clip in tones(3)])
    waveform[2] = 0  # silence: the floor
    expected = extractor([row.numpy() for row in waveform], sampling_rate=16_000, return_tensors="pt")["input_features"]
    features = clap_features(waveform, extractor)
    assert features.shape == (3, 1, 251, 64)
    difference = (features - expected).abs()  # dB; near the floor fp32 is coarser than the extractor's fp64
    assert difference[expected > -40].max() < 5e-4 and difference.max() < 0.1
    assert features[2].max() == -100


def test_the_model_reads_every_frame():
    """251 frames stretch to the 256 of the folded square: the last one counts too."""
    module = PocketClap().eval()
    features = clap_features(tones(1)[0]["waveform"][None, :80_000], module.feature_extractor)
    with torch.no_grad():
        heard = module.model.audio_model(input_features=features).pooler_output
        features[..., -1, :] += 40
        assert (module.model.audio_model(input_features=features).pooler_output - heard).abs().max() > 1e-4


def test_clips_of_any_length_are_read(trained):
    clap = ClapEmbedder(trained.module.model, trained.module.feature_extractor, trained.module.tokenizer)
    wave = tones(1)[0]["waveform"]
    for samples in (16_000, 80_000, 81_920):
        assert clap.audio(wave[:samples], 16_000).norm() == pytest.approx(1, abs=1e-5)
    assert clap.audio(wave.repeat(3), 16_000).shape == (128,)


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_the_same_labels_or_words_are_the_same_meaning():
    labels = [["Piano"], ["Piano"], ["Harp", "Cello"], ["Flute", "Cello"], ["Piano", "Cello"]]
    duet = "Duet, played with cello accompaniment"
    same = same_meaning(labels, ["piano", "a piano", duet, duet, "piano and cello"])
    assert same.tolist() == [[i == j or {i, j} in ({0, 1}, {2, 3}) for j in range(5)] for i in range(5)]


def test_the_loss_knows_several_right_answers():
    by_audio, by_text = torch.randn(2, 6, 6)
    order = torch.arange(6)
    plain = (torch.nn.functional.cross_entropy(by_audio, order) + torch.nn.functional.cross_entropy(by_text, order)) / 2
    torch.testing.assert_close(contrastive_loss(by_audio, by_text, torch.eye(6) > 0), plain)
    pairs = torch.block_diag(*[torch.ones(2, 2)] * 3)
    perfect = contrastive_loss(1e3 * pairs, 1e3 * pairs, pairs > 0)
    assert perfect == pytest.approx(math.log(2), abs=1e-5)  # which of the two, nobody can say


# --- training -------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_prompts_tell_instruments(trained):
    assert sum(trained.losses[-4:]) < 0.9 * sum(trained.losses[:4])
    figures = trained.trainer.callback_metrics
    assert {"val/loss", "val/found", "val/instrument", "train/scale"} <= set(figures) and "val/genre" not in figures
    assert trained.losses[-1] > math.log(2) - 0.1  # four timbres in a batch of eight: two right answers each


def test_both_towers_learn_to_tell_labels(tmp_path):
    module, losses = PocketClap(tmp_path, learning_rate=2e-3, warmup_steps=2, label_weight=8.0), Losses()
    trainer = fit(module, 16, callbacks=[losses])
    chance = math.log(2)  # of a head that knows nothing yet
    assert trainer.callback_metrics["train/labels_from_audio"] < 0.5 * chance
    assert trainer.callback_metrics["train/labels_from_text"] < 0.5 * chance


def test_training_goes_on_from_a_written_clap(trained):
    again = PocketClap(trained.folder, start=trained.folder)
    for name, weight in trained.module.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_runs_resume_exactly(tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 1:
                trainer.save_checkpoint(tmp_path / "one.ckpt")

    whole, resumed = (PocketClap(tmp_path / name) for name in "ab")
    fit(whole, 2, count=8, callbacks=[Save()])
    fit(resumed, 2, count=8, ckpt_path=tmp_path / "one.ckpt")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"level": (3.0, -3.0)}, r"model\.level: \(3\.0, -3\.0\); give the lowest gain first"),
        ({"described": -0.1}, r"model\.described: -0\.1; it must be between 0 and 1"),
        ({"labelled": 1.5}, r"model\.labelled: 1\.5; it must be between 0 and 1"),
        ({"label_weight": -1.0}, r"model\.label_weight: -1\.0; it must not be negative"),
        ({"start": Path("nowhere")}, r"model\.folder: nowhere lacks text_encoder"),
    ],
)
def test_wrong_settings_say_so(knobs, message):
    with pytest.raises(InputError, match=message):
        PocketClap(**knobs)


def test_short_clips_say_so():
    with pytest.raises(InputError, match=r"data\.audio_length_in_s: 2 s; CLAP reads 5 s"):
        PocketClap()._cut(torch.zeros(1, 32_000), torch.Generator())


# --- what is written ------------------------------------------------------------------------------------------------


def test_the_pipeline_and_the_embedder_read_what_is_written(trained, tmp_path):
    parts = tmp_path / "parts"
    shutil.copytree(pocket_folder(), parts)
    trained.module.write(parts)
    with_untrained_unet(parts, tmp_path / "backbone")
    clap = ClapEmbedder.from_pretrained(tmp_path / "backbone")
    waves, prompts = [clip["waveform"] for clip in tones(4)], ["a recording of a violin solo", "jazz style music"]
    module = trained.module
    with torch.no_grad():
        features = clap_features(torch.stack(waves)[:, 960:80_960], module.feature_extractor)  # the middle
        expected = module.model.get_audio_features(input_features=features).pooler_output
    heard = torch.stack([clap.audio(wave, 16_000) for wave in waves])
    torch.testing.assert_close(
        heard, torch.nn.functional.normalize(expected, dim=-1), atol=2e-2, rtol=0
    )  # fp16 weights
    pipeline = AudioLDM2Pipeline.from_pretrained(tmp_path / "backbone", torch_dtype=torch.float32)
    assert pipeline.feature_extractor.nb_max_samples == 80_000 and pipeline.text_encoder.config.projection_dim == 128
    assert pipeline.tokenizer(prompts).input_ids == module.tokenizer(prompts).input_ids
    embeddings, _, generated = pipeline.encode_prompt(prompts, "cpu", 1, False)
    assert embeddings.isfinite().all() and generated.shape[:2] == (2, 8)
    best = pipeline.score_waveforms(["a recording of a piano solo"], torch.stack(waves), 4, "cpu", torch.float32)
    assert best.shape == (4, 81_920)


# --- measuring ------------------------------------------------------------------------------------------------------


def clips(count: int) -> Clips:
    rows = batch(tones(count))
    return Clips(rows["waveform"], rows["key"], rows["prompt"], rows["labels"], rows["metadata"])


def test_the_measure_asks_among_eight(trained, tmp_path):
    held_out = clips(8)
    held_out.labels[4:6] = [["Jazz"], ["Piano", "Cello"]]
    held_out.prompts[4:6] = [Meaning(genre="jazz").captions()[0], "a recording of piano, cello"]
    recordings = Clips(held_out.waveform[:2], ["violin_0-0", "Chinese_flute_0-0"])
    trained.module.write(tmp_path)
    figures = measure(Subject(tmp_path, held_out, 0, tmp_path / "pictures", recordings))
    by_name = {figure.name: figure for figure in figures}
    instrument = by_name["text retrieves the instrument among 8"]
    assert (instrument.clips, instrument.target, instrument.compared) == (6, ">= 0.95", {"chance": 0.125})
    assert by_name["text retrieves the genre among 8"].clips == 1
    assert by_name["text retrieves the accompaniment among 8"].clips == 1
    assert by_name["audio-to-text recall@1 among 6 captions"].clips == 6
    assert by_name["text retrieves the instrument among 8: real recordings"].clips == 1
    assert by_name["linear probe on text: task"].target == ">= 0.99"
    assert all(figure.low <= figure.value <= figure.high and figure.untrained is not None for figure in figures)
    assert (tmp_path / "pictures" / "clap.png").stat().st_size > 10_000


def test_recall_counts_the_caption_itself(trained, tmp_path):
    """With embeddings that are known: every clip at its own caption, then every clip at the first caption."""
    trained.module.write(tmp_path)
    both = embedders(tmp_path, 0)
    held_out = clips(4)
    vectors = both[0].text(held_out.prompts)
    figure = recall(Subject(tmp_path, held_out), both, [vectors, vectors])
    assert (figure.value, figure.clips, figure.compared["caption of the same labels"]) == (1.0, 4, 1.0)
    assert recall(Subject(tmp_path, held_out), both, [vectors[:1].expand(4, -1), vectors]).value == 0.25
