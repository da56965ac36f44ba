"""Scores and distances in CLAP's space: closed forms, the model's own stages, golden values with the pocket's CLAP."""

import copy
import math

import numpy as np
import pytest
import torch
import transformers
from random_folders import tiny_backbone
from tunes import RATE, melody

from apa_lightning.errors import InputError
from apa_lightning.metrics import (
    ClapScore,
    Clip,
    DeltaClap,
    DirectionalClap,
    Lpaps,
    clap_score,
    delta_clap,
    directional_clap,
    edited_clips,
    lpaps,
    stage_distance,
)
from apa_lightning.metrics.clap_embedder import ClapEmbedder

PIANO, VIOLIN = "a recording of a piano solo", "a recording of a violin solo"


@pytest.fixture(scope="module")
def tiny() -> ClapEmbedder:
    return ClapEmbedder.from_pretrained(tiny_backbone())


@pytest.fixture(scope="module")
def pocket() -> ClapEmbedder:
    return ClapEmbedder.from_pretrained("embedded")


def unit(*values: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(values), dim=0)


def test_a_fusion_checkpoint_marks_no_clip_as_long(tiny):
    """Of a batch of short clips, its feature extractor declares one long, drawn at random from numpy's own state."""
    config = copy.deepcopy(tiny.model.config)
    config.audio_config.enable_fusion = True
    torch.manual_seed(0)
    fusion = ClapEmbedder(transformers.ClapModel(config), tiny.feature_extractor, tiny.tokenizer)
    clips = [melody(seed, seconds=25.0) for seed in (1, 2)]  # several windows each
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = [fusion.audio(clip, RATE) for clip in clips]
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(1)
    assert all(torch.equal(fusion.audio(clip, RATE), known) for clip, known in zip(clips, first, strict=True))
    windows = fusion.audio_windows(clips[0], RATE, hop_s=5.0)
    alone = fusion.audio_windows(clips[0][: 11 * RATE], RATE, hop_s=5.0)
    torch.testing.assert_close(windows[:1], alone, atol=1e-5, rtol=1e-4)


# --- scores on embeddings -------------------------------------------------------------------------------------------


def test_scores_are_cosines():
    text, edited, source = unit(1.0, 0, 0), unit(1.0, 1, 0), unit(1.0, 0, math.sqrt(3))
    assert clap_score(edited, text) == pytest.approx(math.sqrt(0.5))
    assert delta_clap(edited, source, text) == pytest.approx(math.sqrt(0.5) - 0.5)
    assert delta_clap(source, source, text) == 0


@pytest.mark.parametrize(("angle", "expected"), [(0.0, 1.0), (90.0, 0.0), (180.0, -1.0), (60.0, 0.5)])
def test_direction_is_the_angle_between_the_steps(angle, expected):
    """The lengths of the steps, and where they begin, do not count."""
    turn = math.radians(angle)
    source, text_from = torch.tensor([0.3, 0.1, 0.5]), torch.tensor([-0.2, 0.4, 0.0])
    edited = source + 0.3 * torch.tensor([math.cos(turn), math.sin(turn), 0.0])
    text = text_from + 0.7 * torch.tensor([1.0, 0.0, 0.0])
    assert directional_clap(edited, source, text, text_from) == pytest.approx(expected, abs=1e-6)


def test_without_a_step_there_is_no_direction():
    here, there = unit(1.0, 2, 3), unit(3.0, 2, 1)
    assert math.isnan(directional_clap(here, here + 1e-5, there, here))
    assert math.isnan(directional_clap(there, here, here, here))


# --- scores of audio ------------------------------------------------------------------------------------------------


def test_metrics_of_audio_equal_the_embeddings(tiny):
    edited, source = melody(1), melody(2, seconds=2.0)
    after, before = tiny.audio(edited, RATE), tiny.audio(source, RATE)
    text, text_from = tiny.text([VIOLIN])[0], tiny.text([PIANO])[0]
    delta, direction = DeltaClap(tiny), DirectionalClap(tiny)
    delta.update(edited_clips([edited], [source], RATE, [VIOLIN]))
    direction.update(edited_clips([edited], [source], RATE, [VIOLIN], [PIANO]))
    assert delta.compute() == pytest.approx(float(after @ text - before @ text), abs=1e-6)
    cosine = torch.cosine_similarity(after - before, text - text_from, dim=0)
    assert direction.compute() == pytest.approx(float(cosine), abs=1e-4)


def test_an_untouched_recording_gains_nothing_and_has_no_direction(tiny, caplog):
    delta, direction = DeltaClap(tiny), DirectionalClap(tiny)
    delta.update(edited_clips([melody(1)], [melody(1)], RATE, [VIOLIN]))
    direction.update(edited_clips([melody(1)], [melody(1)], RATE, [VIOLIN], [PIANO]))
    assert delta.compute() == 0
    assert math.isnan(direction.compute())
    assert int(direction.skipped) == 1
    assert "score is not finite" in caplog.text


def test_bad_input_of_scores(tiny):
    with pytest.raises(InputError, match="DeltaClap has none; give a CLAP folder"):
        DeltaClap().update(edited_clips([melody(1)], [melody(2)], RATE, ["a"]))
    metric = DirectionalClap(tiny)
    metric.update(edited_clips([torch.zeros(RATE)], [melody(1)], RATE, ["a"], ["b"]))
    assert int(metric.skipped) == 1


# --- LPAPS ----------------------------------------------------------------------------------------------------------


def test_stage_distance_by_hand():
    first = [torch.tensor([3.0, 0, 4, 0]).reshape(1, 2, 1, 2), torch.ones(1, 3, 1, 1)]
    second = [torch.tensor([5.0, 0, 0, 7]).reshape(1, 2, 1, 2), 9 * torch.ones(1, 3, 1, 1)]
    # Position 0: (0.6, 0.8) against (1, 0). Position 1 has no channels in the first, (0, 1) in the second: 1.
    squared = [(0.4**2 + 0.8**2 + 1) / 2, 0.0]
    assert stage_distance(first, second) == pytest.approx(sum(squared) / 2)
    assert stage_distance([-first[1]], [first[1]]) == pytest.approx(4)
    with pytest.raises(InputError, match="one length"):
        stage_distance(first, second[:1])


def test_stages_are_the_transformers_own(tiny):
    """Hooked where the stages end, as published implementations of LPAPS do."""
    outputs = []
    layers = tiny.model.audio_model.audio_encoder.layers
    hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output[0])) for layer in layers]
    stages = tiny.stages(melody(1), RATE)
    for hook in hooks:
        hook.remove()
    assert len(stages) == len(layers)
    for stage, output in zip(stages, outputs, strict=True):
        torch.testing.assert_close(stage.flatten(2).transpose(1, 2), output)


@pytest.mark.parametrize("name", ["tiny", "pocket"])
def test_lpaps_of_identical_audio_is_exactly_zero(name, request):
    clap = request.getfixturevalue(name)
    metric = Lpaps(clap)
    metric.update(edited_clips([melody(1, seconds=6.0)], [melody(1, seconds=6.0)], RATE))
    assert metric.compute() == 0
    assert metric.higher_is_better is False
    assert lpaps(Clip(melody(1, seconds=6.0), RATE), Clip(melody(2, seconds=6.0), RATE), clap) > 1e-3


def test_lpaps_grows_with_noise_and_cuts_to_the_shorter(pocket):
    source, noise = melody(1), torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    figures = [lpaps(Clip(source + level * noise, RATE), Clip(source, RATE), pocket) for level in (0.001, 0.01, 0.1)]
    assert 0 < figures[0] < figures[1] < figures[2] < 4
    assert lpaps(Clip(torch.cat([source, noise]), RATE), Clip(source, RATE), pocket) == 0


def test_stages_of_a_long_clip_have_a_row_per_window(tiny):
    assert {len(stage) for stage in tiny.stages(melody(1, seconds=20.5), RATE)} == {2}


def test_windows_begin_every_hop(tiny):
    size = tiny.feature_extractor.nb_max_samples
    wave = melody(1, seconds=size / 48_000 + 2.5, rate=48_000)
    windows = tiny.audio_windows(wave, 48_000)
    assert windows.shape[0] == 3
    torch.testing.assert_close(windows[2], tiny.audio(wave[96_000 : 96_000 + size], 48_000))
    assert len(tiny.audio_windows(wave, 48_000, hop_s=0.25)) == 11  # more than one batch
    torch.testing.assert_close(tiny.audio_windows(melody(1), RATE)[0], tiny.audio(melody(1), RATE))


def test_a_fused_claps_stages(tiny):
    config = transformers.ClapConfig(
        audio_config={**tiny.model.config.audio_config.to_dict(), "enable_fusion": True, "fusion_type": "aff_2d"},
        text_config=tiny.model.config.text_config.to_dict(),
        projection_dim=tiny.model.config.projection_dim,
    )
    fused = ClapEmbedder(transformers.ClapModel(config), transformers.ClapFeatureExtractor(truncation="fusion"), None)
    assert lpaps(Clip(melody(1), RATE), Clip(melody(1), RATE), fused) == 0


def test_golden_values(pocket):
    """Figures of 2026-11 on fixed audio with the shipped CLAP: a change means that another definition is measured."""
    edited, source = melody(1, semitones=12), melody(2)
    metrics = [ClapScore(pocket), DeltaClap(pocket), DirectionalClap(pocket), Lpaps(pocket)]
    for metric in metrics:
        metric.update(edited_clips([edited], [source], RATE, [VIOLIN], [PIANO]))
    assert [float(metric.compute()) for metric in metrics] == pytest.approx(
        [0.1846, -0.0198, -0.3549, 0.7082], abs=2e-3
    )
