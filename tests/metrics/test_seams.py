"""The seam measure on signals whose jumps are known."""

import math

import pytest
import torch

from apa_lightning.metrics import Clip, EditedClip, SeamLevel, SeamSpectrum, seams

RATE = 16_000


def tones(seconds: float = 4, pitch: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    return sum(0.1 / k * torch.sin(2 * math.pi * 220 * pitch * k * time) for k in range(1, 8))


def melody(seed: int = 0) -> torch.Tensor:
    """Notes of 0.25 s that decay, each of another pitch and loudness."""
    draw = torch.Generator().manual_seed(seed)
    note = torch.exp(-torch.arange(RATE // 4) / (RATE / 10))
    notes = [tones(0.25, 2 ** float(torch.rand((), generator=draw))) * note for _ in range(32)]
    return torch.cat([one * (0.3 + float(torch.rand((), generator=draw))) for one in notes])


def scores(edited: torch.Tensor, source: torch.Tensor, *joints: tuple[float, float], **facts) -> tuple[float, float]:
    edit = EditedClip(Clip(edited, RATE), Clip(source, RATE), joints=joints, **facts)
    return SeamLevel().score(edit), SeamSpectrum().score(edit)


@pytest.mark.parametrize("fade", [0.0, 0.03])
@pytest.mark.parametrize("decibels", [6.0, -6.0, 12.0])
def test_a_jump_of_level_reads_as_it_is_and_leaves_the_spectrum(decibels, fade):
    source = tones()
    edited = source.clone()
    edited[2 * RATE :] *= 10 ** (decibels / 20)
    level, spectrum = scores(edited, source, (2 - fade / 2, 2 + fade / 2))
    assert level == pytest.approx(abs(decibels), abs=0.3)
    assert abs(spectrum) < 1


def test_a_jump_of_the_spectrum_leaves_the_level():
    source, bright = tones(), torch.sin(2 * math.pi * 220 * torch.arange(4 * RATE) / RATE)
    bright *= source.norm() / bright.norm()
    level, spectrum = scores(torch.cat([source[: 2 * RATE], bright[2 * RATE :]]), source, (2, 2))
    assert abs(level) < 0.5 and spectrum > 3


def test_an_untouched_recording_is_as_abrupt_as_it_is():
    """Over all places its jumps are the usual ones; at one of them they have some rank among these."""
    source = melody()
    places = tuple((0.2 + 0.05 * i, 0.23 + 0.05 * i) for i in range(150))
    assert scores(source, source, *places) == pytest.approx((0, 0), abs=0.3)
    found = seams(Clip(source, RATE), Clip(source, RATE), places)
    assert len(found.joints.level) == 150 and 0.2 < (found.usual.level < found.joints.level.mean()).mean() < 0.8


def test_a_long_fade_is_less_abrupt_than_a_short_one():
    source = tones()
    read = []
    for fade in (0.03, 0.3, 1.0):
        gain = ((torch.arange(len(source)) / RATE - 1) / fade).clamp(0, 1)
        read.append(scores(source * (1 + 3 * gain), source, (1, 1 + fade))[0])
    assert read[0] > 11 and read[0] > 2 * read[1] > 4 * read[2] > 0


def test_level_does_not_count_but_silence_does():
    source = melody()
    edited = source.clone()
    edited[4 * RATE :] = 0
    joint = (4.0, 4.03)
    assert scores(edited, source, joint)[0] > 20
    assert scores(edited, source, joint) == pytest.approx(scores(edited / 8, source / 8, joint), abs=1e-3)


def test_rates_may_differ():
    edited = Clip(tones(), RATE)
    source = Clip(torch.sin(2 * math.pi * 220 * torch.arange(4 * 8_000) / 8_000), 8_000)
    assert abs(SeamLevel().score(EditedClip(edited, source, joints=((2.0, 2.03),)))) < 0.3


@pytest.mark.parametrize("joints", [(), ((0.05, 0.08),), ((3.95, 3.98),), ((7.0, 7.03),)])
def test_without_a_joint_that_has_both_sides_there_is_no_score(joints):
    assert all(map(math.isnan, scores(tones(), tones(), *joints)))
    assert all(map(math.isnan, scores(tones(0.15), tones(0.15), *joints)))


def test_metrics_of_fidelity_compare_from_where_the_source_starts():
    edit = EditedClip(Clip(torch.cat([tones(1), melody()]), RATE), Clip(melody(), RATE), lead=1.0)
    assert torch.equal(edit.aligned.waveform, melody()) and edit.aligned is edit.aligned
    assert EditedClip(edit.edited, edit.source).aligned is edit.edited
