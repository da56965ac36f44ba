"""The proof of editing: its trials, its figures on systems whose outcome is known, and the command's measuring parts."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from pocket_tools import LABELS, batch, pocket_folder, tones, with_untrained_unet
from sklearn.metrics import cohen_kappa_score

from apa_lightning import InputError
from apa_lightning.audio import normalize_level
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.metrics import Clip
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.measures import editing as measure_editing
from apa_lightning.pocket.measures import imitation as measure_imitation
from apa_lightning.pocket.measures import judge as measure_judge
from apa_lightning.pocket.measures import unet as measure_unet
from apa_lightning.pocket.parts.judge import PocketJudge
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.edit_trials import (
    Trial,
    Trials,
    mel_distance,
    recorded_trials,
    rendered_trials,
    with_references,
)
from apa_lightning.pocket.report.fronts import above_at_equal_recognition, best_at
from apa_lightning.pocket.report.proof import Proof
from apa_lightning.pocket.report.scores import Score, bootstrap_excess
from apa_lightning.pocket.report.subject import Subject

FEATURES: dict = {}
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
    """The same work on as little as tells whether it is right; the features of equal waveforms are computed once."""

    def feature(clip, function, *arguments):
        key = (clip.waveform.numpy().tobytes(), function, *arguments)
        if key not in FEATURES:
            FEATURES[key] = function(clip.waveform, clip.sample_rate, *arguments)
        return FEATURES[key]

    monkeypatch.setattr(Clip, "feature", feature)
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


class Player:
    """An editor that plays a clip: the source's melody on the target (truth), the source, or another melody on the target (text)."""

    def __init__(self, clips: Clips, plays: dict[float, str]):
        self.clips, self.plays = clips, plays

    def edit(self, requests, **_):
        return [EditResult(request, self.play(request), 16_000) for request in requests]

    def play(self, request) -> torch.Tensor:
        source = next(i for i, one in enumerate(self.clips.waveform) if torch.equal(one, request.audio[0]))
        kind = self.plays[request.ap_scale] if request.strength == 1 else "source"
        target = next((i for i, name in enumerate(INSTRUMENTS) if f" {name} " in request.prompt), 0)
        melody = source // 4 if kind == "truth" else (source // 4 + 1) % 3
        return request.audio[0] if kind == "source" else self.clips.waveform[4 * melody + target]


def test_editing_is_measured(clips, tmp_path, monkeypatch):
    """Three fronts whose scores are known: the adapter keeps the tune where the copy and SDEdit lose it."""
    editors = {
        "adapter": Player(clips, {0.0: "text", 0.3: "truth", 0.5: "truth"}),
        "untrained copy": Player(clips, {0.3: "text", 0.5: "source"}),
    }
    monkeypatch.setattr(measure_editing, "load_editors", lambda subject, points: editors)
    monkeypatch.setattr(measure_editing.InstrumentJudge, "from_pretrained", lambda folder: Knowing(clips))
    monkeypatch.setattr(measure_editing.ClapEmbedder, "from_pretrained", lambda folder: None)
    monkeypatch.setattr(measure_editing.ClapScore, "score", lambda self, edit: 0.6)
    points = [{"ap_scale": 0.5}, {"ap_scale": 0.3}]
    proof = Proof(trials=3, recorded=4, points=points, strengths=[0.75], genre_trials=2, genre_points=points)
    names = ["piano_1-0", "violin-0", "flute-0", "harpsichord-0"]
    windows = Clips(clips.waveform[[0, 1, 2, 3]], names, metadata=[{"melody": name} for name in names])
    subject = Subject(tmp_path, clips, 0, tmp_path, windows=windows, proof=proof)
    scores = {score.name: score for score in measure_editing.measure(subject)}

    ours = scores["adapter: pitch accuracy to the source"]
    assert (ours.compared["no edit"], ours.clips, ours.untrained) == (1, 3, 1)
    assert ours.value == ours.compared["truth"] > 0.9 > 0.2 > ours.compared["text alone"]
    recognized = scores["adapter: target recognized by the judge"]
    assert (recognized.value, recognized.untrained, recognized.compared["SDEdit 0.75"]) == (1, 0, 0)
    kappa = scores["adapter: recognition above chance (kappa)"]
    assert kappa.value == 1 and kappa.untrained <= 0
    # Neither the copy nor SDEdit is recognized without losing the tune.
    for other in ("its untrained copy", "SDEdit"):
        above = scores[f"adapter: above {other} at equal recognition, pitch accuracy"]
        assert above.value == pytest.approx(ours.value - ours.compared["text alone"]) and above.reached
    assert (
        scores["adapter, real recordings: recognition above chance (kappa)"].clips == 3
    )  # a harpsichord is not a harp
    assert "truth" not in scores["adapter, real recordings: pitch accuracy to the source"].compared
    genre = scores["adapter, genre transfer: CLAP at a melody accuracy of 0.4 or more"]
    assert genre.value == pytest.approx(0.6) and genre.clips == 2

    kept = json.loads((tmp_path / "editing.json").read_text())
    assert kept["held-out melodies"]["no edit"]["pitch"] == [1, 1, 1] and "truth" not in kept["real recordings"]
    assert kept["genre transfer"]["adapter alpha 0.5"]["clap"] == [0.6, 0.6, 0.6]
    lines = (tmp_path / "editing.md").read_text().splitlines()
    assert "| held-out melodies | adapter alpha 0.3 | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |" in "\n".join(lines)
    assert (tmp_path / "trade_off.png").stat().st_size > 10_000
    assert len(list((tmp_path / "edits" / "held-out_melodies").glob("*.wav"))) == 3 * 5


class Imitator(Player):
    """An editor that plays the source's tune on the reference's instrument, or on its own where there is no reference."""

    def play(self, request) -> torch.Tensor:
        assert request.prompt == "a recording of a solo"  # the target is not named
        shown = [entry["audio"][0] for entry in request.audio_prompts if "audio" in entry]
        source, *reference = (self.number(waveform) for waveform in (request.audio[0], *shown))
        if not reference or self.plays == "source":
            return request.audio[0]
        assert reference[0] // 4 != source // 4  # another tune
        return self.clips.waveform[4 * (source // 4) + reference[0] % 4]

    def number(self, waveform):
        return next(i for i, one in enumerate(self.clips.waveform) if torch.equal(one, waveform))


def test_imitation_is_measured(clips, tmp_path, monkeypatch):
    editors = {"adapter": Imitator(clips, "reference"), "untrained copy": Imitator(clips, "source")}
    monkeypatch.setattr(measure_imitation, "load_editors", lambda subject, points, file: editors)
    monkeypatch.setattr(measure_imitation.InstrumentJudge, "from_pretrained", lambda folder: Knowing(clips))
    (tmp_path / "timbre.safetensors").touch()
    windows = Clips(clips.waveform[[0, 5]], ["piano_1-0", "violin-0"], metadata=[{"melody": "one"}, {"melody": "two"}])
    subject = Subject(tmp_path, clips, 0, tmp_path, windows=windows, proof=Proof(trials=3))
    scores = {score.name: score for score in measure_imitation.measure(subject)}
    recognized = scores["adapter: target recognized by the judge"]
    assert (recognized.value, recognized.untrained, recognized.clips) == (1, 0, 3)
    assert recognized.compared == {"no reference": 0, "no edit": 0, "truth": 1}
    assert scores["adapter: above its untrained copy at equal recognition, pitch accuracy"].value <= 0
    assert {score.part for score in scores.values()} == {"imitation"}
    kept = json.loads((tmp_path / "imitation" / "editing.json").read_text())
    name = "adapter recording: , reference: omega 16"
    assert kept["held-out melodies"][name]["mel_to_truth"] == [0, 0, 0]


def test_a_target_is_shown_by_another_tune(clips):
    trials = rendered_trials(clips, 9, seed=0)
    shown = with_references(clips, trials)
    assert [replace(trial, reference=None) for trial in shown] == trials
    for trial in shown:
        source, reference = clips.metadata[trial.source], clips.metadata[trial.reference]
        assert reference["instrument"] == trial.target and reference["melody"] != source["melody"]
    assert with_references(clips.take(range(4)), rendered_trials(clips.take(range(4)), 2, 0)) == []  # a single tune


def test_an_adapter_is_compared_with_a_copy(folder):
    load, subject = measure_editing.load_editors, Subject(folder, None)
    assert list(load(subject, [])) == ["untrained copy"]  # the folder has no adapter
    own = folder / "adapter.safetensors"
    load(subject, [])["untrained copy"].adapters[0].save(own)
    try:
        both = load(subject, [])
        assert list(both) == ["adapter", "untrained copy"]
        assert both["adapter"].backbone is both["untrained copy"].backbone
        assert list(load(Subject(folder, None, proof=Proof(adapter=None)), [])) == ["untrained copy"]
        assert [len(editor.adapters) for editor in load(subject, [], str(own)).values()] == [2, 2]
        with pytest.raises(InputError, match="time_pooling: 3"):
            load(subject, [{"time_pooling": 3}])
    finally:
        own.unlink()


def test_imitation_needs_an_adapter_of_the_sound(folder, clips):
    with pytest.raises(InputError, match=r"model.proof.sound_adapter: .*timbre.safetensors is not a file"):
        measure_imitation.measure(Subject(folder, clips))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 1}, "model.proof.trials: 1; give 2 or more"),
        ({"points": []}, "model.proof.points: empty"),
        (
            {"points": [{"alpha": 1}]},
            "model.proof.points: 'alpha' is not a knob; choose from negative_prompt, ap_scale",
        ),
        ({"genre_points": [{"time_pooling": 0}]}, "model.proof.genre_points: time_pooling"),
        ({"strengths": [1.5]}, "model.proof.strengths: strength"),
        ({"sound_points": [{"audio_prompts": [{"omega": 2}]}]}, "model.proof.sound_points: audio_prompts[0].omega"),
        ({"adapter": "nowhere"}, "model.proof.adapter: nowhere is not a file"),
    ],
)
def test_settings_of_the_proof(settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Proof(**settings)


def test_the_best_of_a_front():
    recognized, pitch = np.array([0.2, 0.6, 1.0]), np.array([0.9, 0.5, 0.3])
    assert best_at(0.6, recognized, pitch) == pytest.approx(0.6)  # half at 0.2 and half at 1.0
    assert best_at(1.0, recognized, pitch) == pytest.approx(0.3)
    assert best_at(0.1, recognized, pitch) == pytest.approx(0.9)
    assert np.isnan(best_at(1.1, recognized, pitch))
    levels = np.array([0.4, 1.1])
    both = best_at(levels, np.stack([recognized] * 2), np.stack([pitch] * 2))
    assert both[0] == pytest.approx(0.75) and np.isnan(both[1])


def test_chance_is_taken_off(trials):
    """A judge that names one instrument is right now and then, and tells nothing."""
    targets = np.array([NAMES.index(trial.target) for trial in trials.trials])
    nothing = trials.outcome(trials.sources())
    always = replace(nothing, answer=np.full(6, targets[0]), recognized=(targets == targets[0]).astype(float))
    assert always.recognized.mean() > 0 and trials.above_chance(always).mean == pytest.approx(0)
    half = np.where(np.arange(6) < 3, targets, (targets + 4) % 8)
    found = replace(nothing, answer=half, recognized=(half == targets).astype(float))
    assert trials.above_chance(found).mean == pytest.approx(cohen_kappa_score(half, targets))


def test_fronts_are_compared_in_pairs(trials):
    truth, nothing = trials.outcome(trials.truths()), trials.outcome(trials.sources())
    front = [truth, nothing]
    assert above_at_equal_recognition(front, front, "pitch", trials.tunes, 0) == (0, 0, 0)
    worse = [replace(truth, pitch=truth.pitch - 0.25), nothing]
    assert above_at_equal_recognition(front, worse, "pitch", trials.tunes, 0) == pytest.approx((0.25, 0.25, 0.25))
    # A system that is never recognized is taken where it is recognized most.
    gap = above_at_equal_recognition(front, [nothing], "pitch", trials.tunes, 0)
    assert gap.mean == pytest.approx(truth.pitch.mean() - 1)


def test_editing_without_renditions_says_so(folder, clips):
    with pytest.raises(ValueError, match="no melody was rendered on two instruments"):
        measure_editing.measure(Subject(folder, clips.take([0, 5])))


def test_the_unet_is_asked(folder, clips, monkeypatch):
    monkeypatch.setattr(measure_unet, "ablated", lambda *args: [])  # see test_pocket_edits.py
    monkeypatch.setattr(measure_unet, "EditRequest", partial(EditRequest, num_inference_steps=1))
    figures = {figure.name: figure for figure in measure_unet.measure(Subject(folder, clips))}
    matched = figures["excess of the loss with another clip's audio tokens over the clip's own omega 1"]
    assert matched.clips == 4 and matched.target == ">= 0.20" and not matched.reached
    assert matched.low <= matched.value <= matched.high
    recognized = next(figure for name, figure in figures.items() if name.startswith("text alone"))
    assert recognized.clips == 2 and set(recognized.compared) == set(measure_unet.NAMES[:2])


def test_the_judge_is_judged(folder, clips):
    recorded = Clips(clips.waveform[:2], ["piano_1-0", "unknown_0-0"])
    clips = clips.take(range(4))
    figures = {figure.name: figure for figure in measure_judge.measure(Subject(folder, clips, recordings=recorded))}
    assert figures["instrument of true renders"].clips == 4
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
