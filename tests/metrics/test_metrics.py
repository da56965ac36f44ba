"""Metrics against independent computations and closed forms."""

import copy
import logging
import math

import librosa
import numpy as np
import pytest
import torch
import transformers
from random_folders import tiny_backbone
from tunes import RATE, melody

from apa_lightning.audio import resample
from apa_lightning.errors import InputError
from apa_lightning.metrics import (
    ChromaSimilarity,
    ClapScore,
    Clip,
    chroma,
    chroma_cosine,
    chroma_similarity,
    edited_clips,
)
from apa_lightning.metrics.clap_embedder import ClapEmbedder


@pytest.fixture(scope="module")
def clap() -> ClapEmbedder:
    return ClapEmbedder.from_pretrained(tiny_backbone())


# --- chroma ---------------------------------------------------------------------------------------------------------


def test_chroma_names_the_pitch_class():
    tone = torch.sin(2 * math.pi * 440 * torch.arange(2 * RATE) / RATE)
    assert chroma(tone, RATE).mean(axis=1).argmax() == 9  # A, counted from C


def test_chroma_does_not_depend_on_the_sample_rate():
    high = melody(1, rate=44_100)
    assert chroma_cosine(chroma(high, 44_100), chroma(resample(high, 44_100, RATE), RATE)) > 0.999


def test_chroma_of_identical_audio_is_one_and_of_a_tritone_low():
    metric = ChromaSimilarity()
    metric.update(edited_clips([melody(1)], [melody(1)], RATE))
    assert metric.compute() == pytest.approx(1, abs=1e-6)
    metric.reset()
    metric.update(edited_clips([melody(1, semitones=6)], [melody(1)], RATE))
    assert metric.compute() < 0.35
    metric.reset()
    metric.update(edited_clips([melody(1, semitones=12)], [melody(1)], RATE))
    assert metric.compute() > 0.95  # the octave has the same pitch classes


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
def test_chroma_equals_a_computation_frame_by_frame():
    pairs = [(melody(1), melody(2)), (melody(3), melody(4, seconds=2.0))]
    expected = []
    for first, second in pairs:
        tuning = librosa.estimate_tuning(y=second.numpy(), sr=RATE, bins_per_octave=36)  # the source's, for both
        a, b = (
            librosa.feature.chroma_cqt(y=wave.numpy(), sr=RATE, hop_length=512, tuning=tuning).T.tolist()
            for wave in (first, second)
        )
        cosines = [
            sum(x * y for x, y in zip(u, v, strict=True))
            / math.sqrt(sum(x * x for x in u))
            / math.sqrt(sum(y * y for y in v))
            for u, v in zip(a, b, strict=False)
        ]
        expected.append(sum(cosines) / len(cosines))
    metric = ChromaSimilarity()
    metric.update(edited_clips([first for first, _ in pairs], [second for _, second in pairs], RATE))
    assert metric.compute() == pytest.approx(sum(expected) / 2, abs=1e-5)


@pytest.mark.parametrize("cents", [0, 17, 33, 50, 83])
def test_chroma_is_compared_on_one_tuning(cents):
    """At a quarter tone the tunings of equal notes are estimated on two sides of a bin's border, and the notes a bin apart."""
    source = Clip(melody(1, cents / 100), RATE)
    for detuned in (-2, -0.5, 0.5, 2):
        assert chroma_similarity(Clip(melody(1, (cents + detuned) / 100), RATE), source) > 0.95


def test_a_rest_of_digital_silence_has_no_harmony():
    rest = torch.zeros(2 * RATE)
    music, longer = torch.cat([melody(1), rest]), torch.cat([melody(1), melody(2, seconds=2.0)])
    assert chroma_similarity(Clip(music, RATE), Clip(music, RATE)) == pytest.approx(1)
    assert not chroma(music, RATE)[:, -20:].any()
    assert chroma_similarity(Clip(longer, RATE), Clip(music, RATE)) < 0.8


def test_chroma_frames_without_energy():
    a = np.array([[1.0, 0, 0, 1], [0, 0, 1, 1]])
    b = np.array([[1.0, 0, 1, 1], [0, 0, 0, -1]])
    assert chroma_cosine(a, b) == pytest.approx(1 / 3)  # frames: equal, silent in both, orthogonal, orthogonal
    assert chroma_cosine(a, 0 * a) == 0
    assert math.isnan(chroma_cosine(0 * a, 0 * a))


# --- clips that cannot be measured ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (torch.zeros(RATE), "digital silence"),
        (torch.full((RATE,), float("nan")), "NaN"),
        (torch.full((RATE,), float("inf")), "infinite"),
        (torch.ones(100), "less than 0.25 s"),
    ],
)
def test_an_unusable_clip_is_skipped_counted_and_named(bad, why, clap, caplog):
    good = melody(1)
    chroma_similarity, clap_score = ChromaSimilarity(), ClapScore(clap)
    with caplog.at_level(logging.WARNING):
        chroma_similarity.update(edited_clips([bad, good, good], [good, good, bad], RATE))
        clap_score.update(edited_clips([good, bad], [bad, good], RATE, ["a", "b"]))
    assert (int(chroma_similarity.skipped), int(chroma_similarity.clips)) == (2, 1)
    assert (int(clap_score.skipped), int(clap_score.clips)) == (1, 1)
    assert caplog.text.count(why) == 3
    assert "clip 0" in caplog.text
    assert "source" in caplog.text
    assert chroma_similarity.compute() == pytest.approx(1, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_sums_are_float32_and_as_exact_as_float64():
    """MPS has no float64."""
    metric = ChromaSimilarity()
    values = np.random.default_rng(0).normal(0, 1, 3_000).tolist()
    for value in [1e6, *values, -1e6]:
        metric._add(0, value)
    assert not [name for name in metric._defaults if getattr(metric, name).dtype == torch.float64]
    assert metric.compute().dtype == torch.float32
    assert float(metric.compute()) == pytest.approx(sum(values) / 3_002, rel=1e-4)


def test_without_any_clip_the_mean_is_nan():
    metric = ChromaSimilarity()
    metric.update(edited_clips([torch.zeros(RATE)], [melody(1)], RATE))
    assert math.isnan(metric.compute())


def test_different_numbers_of_items_and_stereo_are_refused():
    one, two = [melody(1)], [melody(1), melody(2)]
    for more, words in (
        ((one, RATE), "edited and source: 2 and 1"),
        ((two, RATE, ["x"]), "edited and prompts: 2 and 1"),
        ((two, RATE, None, []), "edited and source_prompts: 2 and 0"),
    ):
        with pytest.raises(InputError, match=words):
            edited_clips(two, *more)
    with pytest.raises(InputError, match=r"\(2, 16000\)"):
        edited_clips([torch.ones(2, RATE)], [torch.ones(2, RATE)], RATE)


# --- CLAP -----------------------------------------------------------------------------------------------------------


def test_clap_score_equals_the_models_own_similarity(clap):
    waves, prompts = [melody(1), melody(2, seconds=4.0)], ["a recording of a violin solo", "jazz"]
    expected = []
    for wave, prompt in zip(waves, prompts, strict=True):
        audio = clap.feature_extractor(
            resample(wave, RATE, 48_000).numpy(), sampling_rate=48_000, truncation="rand_trunc", return_tensors="pt"
        )
        text = clap.tokenizer([prompt], return_tensors="pt")
        with torch.no_grad():
            output = clap.model(**audio, input_ids=text.input_ids, attention_mask=text.attention_mask)
        expected.append(float(output.logits_per_audio / clap.model.logit_scale_a.exp()))
    metric = ClapScore(clap)
    metric.update(edited_clips(waves, waves, RATE, prompts))
    assert metric.compute() == pytest.approx(sum(expected) / 2, abs=1e-5)
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)


def test_a_text_does_not_depend_on_its_neighbours(clap):
    texts = ["piano", "a much longer description of a piano"]
    torch.testing.assert_close(clap.text(texts)[0], clap.text(texts[:1])[0])
    assert clap.text(texts).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_long_clip_is_covered_by_windows(clap):
    wave, ten = melody(1, seconds=20.5, rate=48_000), 480_000
    middle = clap.audio(wave[5_760 : 5_760 + ten], 48_000)
    torch.testing.assert_close(clap.audio(wave[: ten + 11_520], 48_000), middle)  # 10.24 s: the middle 10 s
    both = torch.stack([clap.audio(part, 48_000) for part in (wave[:ten], wave[-ten:])]).mean(dim=0)
    torch.testing.assert_close(clap.audio(wave, 48_000), both / both.norm())


def test_embedding_leaves_the_global_generators_alone(clap):
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    for truncation in ("fusion", "rand_trunc"):
        other = ClapEmbedder(clap.model, transformers.ClapFeatureExtractor(truncation=truncation), clap.tokenizer)
        torch.testing.assert_close(other.audio(melody(1), RATE), clap.audio(melody(1), RATE))
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])


def test_a_fused_clap_works_too():
    sizes = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "enable_fusion": True,
        "fusion_type": "aff_2d",
        "aff_block_r": 2,
    }
    text = {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 24,
        "intermediate_size": 32,
        "vocab_size": 300,
    }
    config = transformers.ClapConfig(audio_config=sizes, text_config=text, projection_dim=24)
    embedder = ClapEmbedder(
        transformers.ClapModel(config), transformers.ClapFeatureExtractor(truncation="fusion"), None
    )
    assert embedder.audio(melody(1, seconds=12), RATE).norm() == pytest.approx(1)


def test_clap_from_a_folder_of_its_own(clap, tmp_path):
    clap.model.save_pretrained(tmp_path)
    clap.feature_extractor.save_pretrained(tmp_path)
    clap.tokenizer.save_pretrained(tmp_path)
    loaded = ClapEmbedder.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.audio(melody(1), RATE), clap.audio(melody(1), RATE))
    torch.testing.assert_close(loaded.text(["piano"]), clap.text(["piano"]))


def test_clap_sources_that_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="clap"):
        ClapEmbedder.from_pretrained("no folder")
    with pytest.raises(InputError, match="clap"):
        ClapEmbedder.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"clap.*network"):
        ClapEmbedder.from_pretrained("laion/not-cached")


# --- state ----------------------------------------------------------------------------------------------------------


def test_the_state_is_three_sums_outside_of_checkpoints_and_without_the_clap(clap):
    metric = ClapScore(clap)
    assert metric.state_dict() == {}
    assert list(metric.parameters()) == []
    assert copy.deepcopy(metric).clap is clap
    assert not any(parameter.requires_grad for parameter in clap.model.parameters())
    module = torch.nn.Module()
    module.metric = metric
    assert module.state_dict() == {}


def test_processes_with_different_numbers_of_clips_agree():
    """Each process's sums meet the other's, as torchmetrics gathers them under DDP."""
    first, second = ([melody(1)], [melody(2)]), ([melody(3), melody(4)], [melody(5), melody(6)])
    states = []
    for edited, source in (first, second):
        metric = ChromaSimilarity()
        metric.update(edited_clips(edited, source, RATE))
        states.append(metric.metric_state)
    whole = ChromaSimilarity()
    whole.update(edited_clips(first[0] + second[0], first[1] + second[1], RATE))

    gathered = iter([[states[0][name], states[1][name]] for name in ("total", "rest", "clips", "skipped")])
    one = ChromaSimilarity(distributed_available_fn=lambda: True, dist_sync_fn=lambda *_, **__: next(gathered))
    one.update(edited_clips(*first, RATE))
    assert one.compute() == pytest.approx(float(whole.compute()))
    assert int(one.clips) == 1  # its own state is back after the meeting
