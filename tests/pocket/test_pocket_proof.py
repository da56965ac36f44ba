"""The proof of editing: its trials, its figures on systems whose outcome is known, and the command's measuring parts."""

import json

import numpy as np
import pytest
import torch
from pocket_tools import LABELS, batch, pocket_folder, tones, with_untrained_unet

from apa_lightning import InputError
from apa_lightning.audio import normalize_level
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.measures import editing as measure_editing
from apa_lightning.pocket.measures import judge as measure_judge
from apa_lightning.pocket.measures import unet as measure_unet
from apa_lightning.pocket.parts.judge import PocketJudge
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.edit_trials import Trial, Trials, mel_distance, recorded_trials, rendered_trials
from apa_lightning.pocket.report.scores import Score, bootstrap_excess
from apa_lightning.pocket.report.subject import Subject

INSTRUMENTS = [label.split(",")[0].lower() for label in LABELS]


class Knowing:
    """A judge that knows the clips: the instrument of the one that a waveform is nearest to."""

    def __init__(self, clips: Clips):
        self.clips = clips

    def names(self, waveforms):
        known = normalize_level(self.clips.waveform)
        nearest = torch.cdist(normalize_level(waveforms), known).argmin(-1)
        return [self.clips.metadata[i]["instrument"] for i in nearest.tolist()]


@pytest.fixture(scope="module")
def clips() -> Clips:
    rows = batch(tones(12, seconds=5.12))
    return Clips(rows["waveform"], rows["key"], rows["prompt"], rows["labels"], rows["metadata"])


@pytest.fixture(scope="module")
def trials(clips) -> Trials:
    return Trials(clips, rendered_trials(clips, 6, seed=0), Knowing(clips), seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole pocket of random weights, with a judge."""
    target = tmp_path_factory.mktemp("pocket") / "model"
    with_untrained_unet(pocket_folder(), target)
    PocketJudge(target).write(target)
    return target


@pytest.fixture(autouse=True)
def _little(monkeypatch):
    """The same work on as little as tells whether it is right."""
    monkeypatch.setattr(measure_editing, "POINT", {**measure_editing.POINT, "num_inference_steps": 1})
    monkeypatch.setattr(measure_editing, "MOST", 2)
    monkeypatch.setattr(measure_editing, "SWEEPS", {"time_pooling": (2, 8), "strength": (0.75, 0.9)})
    monkeypatch.setattr(measure_unet, "MOST_CLIPS", 4)
    monkeypatch.setattr(measure_unet, "GENERATIONS", 2)


def test_trials_are_pairs_of_one_performance(clips):
    trials = rendered_trials(clips, 9, seed=0)
    assert len(trials) == len(set(trials)) == 9
    for trial in trials:
        source, truth = clips.metadata[trial.source], clips.metadata[trial.truth]
        assert source["melody"] == truth["melody"]
        assert (source["instrument"], truth["instrument"]) == (trial.instrument, trial.target)
        assert trial.instrument != trial.target
    assert {clips.metadata[trial.source]["melody"] for trial in trials} == {"tune-0", "tune-1", "tune-2"}
    assert rendered_trials(clips.take([0, 5, 10]), 4, seed=0) == []  # no melody twice
    assert recorded_trials({3: "piano", 5: "violin", 6: "harp"}, 2) == [
        Trial(3, "piano", "violin"),
        Trial(5, "violin", "cello"),
    ]


def test_doing_nothing_and_the_truth(trials):
    nothing, truth = trials.outcome(trials.sources()), trials.outcome(trials.truths())
    assert not nothing.recognized.any() and truth.recognized.all()
    assert nothing.chroma == pytest.approx(np.ones(6)) and nothing.pitch.tolist() == [1] * 6
    assert (nothing.chroma_floor < 0.9).all() and (nothing.pitch_floor < 0.2).all()  # another tune
    assert not truth.mel_to_truth.any() and (nothing.mel_to_truth > 0.1).all()
    assert truth.pitch_to_truth.tolist() == [1] * 6 and (truth.pitch > 0.9).all()
    assert truth.margin == pytest.approx(truth.chroma - truth.chroma_floor)


def test_mel_distance_hears_timbre_and_not_level(clips):
    first, second = clips.waveform[:2]
    assert mel_distance(first, 0.1 * first) < 1e-3 < mel_distance(first, second)


def test_editing_is_measured(folder, clips, tmp_path):
    recorded = Clips(clips.waveform[:2], ["piano_1-0", "unknown_0-0"])
    figures = measure_editing.measure(Subject(folder, clips, 0, tmp_path, recorded))
    by_name = {figure.name: figure for figure in figures}
    ours = by_name["adapter: pitch accuracy to the source"]
    assert (ours.compared["no edit"], ours.clips, ours.target) == (1, 2, ">= 0.5")
    assert {"text alone", "SDEdit 0.75", "truth", "no negative prompt", "shuffled"} <= set(ours.compared)
    # Without an adapter file the adapter is the untrained one.
    assert ours.value == pytest.approx(ours.untrained)
    for words in ("omega 8", "SDEdit strength 0.9"):
        assert by_name[f"{words}: chroma similarity above the shuffled floor"].clips == 2
    assert by_name["omega 2: chroma similarity above the shuffled floor"].value == pytest.approx(
        by_name["adapter: chroma similarity to the source above the shuffled floor"].value
    )
    assert by_name["adapter, real recordings: target recognized by the judge"].clips == 1
    kept = json.loads((tmp_path / "editing.json").read_text())
    assert kept["no edit"]["pitch"] == [1, 1, 1] and "real recordings: adapter" in kept
    assert kept["adapter"]["recognized"][0] == pytest.approx(by_name["adapter: target recognized by the judge"].value)
    assert (tmp_path / "trade_off.png").stat().st_size > 10_000
    assert len(list((tmp_path / "edits").glob("*.wav"))) == 10 and (tmp_path / "edits" / "edits.png").exists()


def test_editing_without_renditions_says_so(folder, clips):
    with pytest.raises(ValueError, match="no melody was rendered on two instruments"):
        measure_editing.measure(Subject(folder, clips.take([0, 5])))


def test_the_unet_is_asked(folder, clips, monkeypatch):
    monkeypatch.setattr(measure_unet, "ablated", lambda *args: [])  # see test_pocket_edits.py
    figures = {figure.name: figure for figure in measure_unet.measure(Subject(folder, clips))}
    matched = figures["excess of the loss with another clip's audio tokens over the clip's own omega 1"]
    assert matched.clips == 4 and matched.target == ">= 0.20" and not matched.reached
    assert matched.low <= matched.value <= matched.high
    recognized = next(figure for name, figure in figures.items() if name.startswith("text alone"))
    assert recognized.clips == 2 and set(recognized.compared) == set(measure_unet.NAMES[:2])


def test_the_judge_is_judged(folder, clips):
    recorded = Clips(clips.waveform[:2], ["piano_1-0", "unknown_0-0"])
    figures = {figure.name: figure for figure in measure_judge.measure(Subject(folder, clips, recordings=recorded))}
    assert figures["instrument of true renders"].clips == 12
    assert figures["instrument of real recordings through VAE and vocoder"].clips == 1
    right = InstrumentJudge.from_pretrained(folder).names(clips.waveform)
    true = [fields["instrument"] for fields in clips.metadata]
    assert figures["instrument of true renders"].value == pytest.approx(
        np.mean([a == b for a, b in zip(right, true, strict=True)])
    )


def test_without_a_judge_nothing_is_measured(clips, tmp_path):
    for part in (measure_editing, measure_judge):
        with pytest.raises(InputError, match="holds no judge"):
            part.measure(Subject(tmp_path, clips))


def test_excess_and_its_interval():
    less = np.linspace(1, 2, 50)
    value, low, high = bootstrap_excess(1.2 * less, less, seed=0)
    assert (value, low, high) == pytest.approx((0.2, 0.2, 0.2))
    noisy = less * (1.2 + 0.1 * np.random.default_rng(0).standard_normal(50))
    value, low, high = bootstrap_excess(noisy, less, seed=0)
    assert low < value < high and high - low < 0.1


@pytest.mark.parametrize(("low", "reached"), [(-0.1, False), (0.0, False), (0.1, True)])
def test_a_target_may_bind_the_interval(low, reached):
    assert Score("editing", "gain", 0.5, low, 0.9, 3, target="low > 0").reached is reached
