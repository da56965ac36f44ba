"""Regions and extensions: what is made new, what is kept, and the cross-fade between the two."""

import math

import pytest
import torch

from apa_lightning import EditRequest, InputError
from apa_lightning.editing.regions import continued, crossfaded, joints_of, new_parts, regions_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.editing.source import Recording

RATE = 16_000


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    noise = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    return 0.3 * noise.cumsum(0).mul(0.5).sin()


def edit(editor, clip, rate: int = RATE, **knobs):
    return editor.edit((clip, rate), prompt="a violin", num_inference_steps=2, progress=False, **knobs)


@pytest.mark.parametrize(
    ("region", "merged"),
    [
        (None, []),
        ((1, 2), [(1, 2)]),
        ([[1, 2]], [(1, 2)]),
        ([(3, 4), (1, 2)], [(1, 2), (3, 4)]),
        ([(1, 2), (2, 3)], [(1, 3)]),
        ([(1, 5), (2, 3), (4, 6)], [(1, 6)]),
    ],
)
def test_regions_that_overlap_or_touch_are_one(region, merged):
    assert regions_of(EditSettings(region=region)) == merged


def test_an_extension_joins_a_region_at_the_end_of_the_recording():
    settings = EditSettings(region=[(0, 1), (4, 5)], extend=(2, 3), crossfade=0.25)
    assert new_parts(settings, 10) == [(-math.inf, 1), (4, 5), (10, math.inf)]
    assert new_parts(settings, 10, 0.25) == [(-math.inf, 1), (4, 5), (9.75, math.inf)]
    assert joints_of(settings, 10) == ((2.75, 3), (6, 6.25), (6.75, 7), (11.75, 12))
    assert joints_of(EditSettings(extend=(0, 3)), 10) == ((10 - 0.03, 10),)
    assert joints_of(EditSettings(extend=(0, 0)), 10) == joints_of(EditSettings(), 10) == ()


@pytest.mark.parametrize(
    "region",
    [(), [], [[1]], [[1, 2], [4, 3]], [[1, 2], 3], [[1, 2, 3]], [["1", 2]], "1-2", 3, [[-1, 2]], [[0, math.inf]]],
)
def test_other_regions_are_refused(region):
    with pytest.raises(InputError, match=r"^region: .*or a list of such pairs"):
        EditSettings(region=region)


@pytest.mark.parametrize("extend", [(1,), (-1, 2), 3, "3", (1, math.nan), [[1, 2]], (True, 1)])
def test_other_extensions_are_refused(extend):
    with pytest.raises(InputError, match=r"^extend: .*give the seconds before and after the recording"):
        EditSettings(extend=extend)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"region": [(0.5, 1), (2, 3.5)]}, r"region: 2 to 3.5 s lies outside"),
        (
            {"region": [(0.5, 1), (2, 3)], "crossfade": 0.4},
            r"crossfade: 0.4 s at both ends of the region from 0.5 to 1 s .* 0.25",
        ),
        (
            {"extend": (0, 1), "crossfade": 2},
            r"crossfade: 2 s at both ends leave nothing of audio, which lasts 3.00 s; give 1.5",
        ),
        ({"extend": (1_000, 1_000)}, r"extend: audio would last 2003 s; the limit for one edit is 1800 s"),
    ],
)
def test_what_does_not_suit_the_recording_is_refused(editor, clip, knobs, message):
    for audio in ((clip, RATE), Recording.load((clip, RATE))):
        with pytest.raises(InputError, match=message):
            editor.edit(audio, prompt="x", **knobs)


def test_only_the_regions_change(editor, clip):
    result = edit(editor, clip, region=[(2, 2.5), (0.5, 1), (0.9, 1.25)]).waveform
    changed = torch.zeros(len(clip), dtype=torch.bool)
    for start, end in ((0.5, 1.25), (2, 2.5)):
        changed[round(start * RATE) : round(end * RATE)] = True
    assert torch.equal(result[~changed], clip[~changed])
    assert (result[changed] != clip[changed]).float().mean() > 0.99
    alone = edit(editor, clip, region=[(2, 2.5)]).waveform
    assert torch.equal(alone, edit(editor, clip, region=(2, 2.5)).waveform)


def test_each_region_gets_the_level_of_its_part(editor, clip):
    source = clip.clone()
    source[RATE:] *= 0.1
    result = edit(editor, source, region=[(0.2, 0.8), (1.5, 2.5)]).waveform
    for start, end in ((0.3, 0.7), (1.6, 2.4)):
        part = slice(round(start * RATE), round(end * RATE))
        assert 0.5 < float(result[part].norm() / source[part].norm()) < 2


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_long_fades_keep_the_power_of_unrelated_sounds_and_short_ones_the_amplitude_of_equal_ones(seconds):
    old, new = torch.randn(2, 4, 2 * RATE, generator=torch.Generator().manual_seed(0))
    fade = slice(0, round(seconds * RATE))
    power = torch.stack([crossfaded(*pair, seconds, RATE, True, False) for pair in zip(old, new, strict=True)])
    assert float(power[:, fade].square().mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(power[:, fade.stop :], new[:, fade.stop :])
    assert torch.allclose(crossfaded(old[0], old[0], 0.03, RATE, True, True), old[0])
    middle = crossfaded(old[0], new[0], 0.03, RATE, True, False)[round(0.01 * RATE) : round(0.02 * RATE)]
    assert float(middle.square().mean()) == pytest.approx(0.52, abs=0.1)  # the 3 dB that a linear fade loses


def test_a_recording_is_continued_by_its_mirror_image():
    assert continued(torch.tensor([1, 2, 3]), 4, 8).tolist() == [3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2]


@pytest.mark.parametrize(
    ("seconds", "extend"),
    [(3, (0, 1.23)), (3, (1.23, 0)), (0.5, (2, 2.5)), (14, (0.7, 11))],
)
def test_an_extended_recording_stays_where_it_was(editor, seconds, extend):
    """Shorter than an extension, or longer than a window of the model (10.24 s)."""
    source = 0.3 * torch.randn(seconds * RATE if seconds > 1 else RATE // 2, generator=torch.Generator().manual_seed(1))
    before, after = (round(one * RATE) for one in extend)
    result = edit(editor, source, extend=extend, crossfade=0.1)
    assert len(result.waveform) == before + len(source) + after
    kept = slice(RATE // 10 if before else 0, len(source) - (RATE // 10 if after else 0))
    assert torch.equal(result.waveform[before:][: len(source)][kept], source[kept])
    new = torch.cat([result.waveform[:before], result.waveform[before + len(source) :]])
    assert 0.1 < float(new.square().mean().sqrt() / source.square().mean().sqrt()) < 2
    assert result.record()["extend"] == extend and result.record()["seconds"] == len(result.waveform) / RATE


def test_an_extension_at_another_rate_with_a_region_and_samples_above_1(editor):
    source = 2 * torch.randn(24_000, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    result = edit(editor, source, 12_000, extend=(0.5, 1), region=(1, 1.5), match_level=False)
    assert len(result.waveform) == 6_000 + 24_000 + 12_000
    kept = slice(round(0.03 * 12_000), 12_000)
    assert torch.equal(result.waveform[6_000:30_000][kept], source[kept])
    assert not torch.equal(result.waveform[20_000:24_000], source[14_000:18_000])
    other = edit(editor, source, 12_000, extend=(0.5, 1), sample_rate=8_000)
    assert (len(other.waveform), other.sample_rate) == (4_000 + 16_000 + 8_000, 8_000)


def test_extensions_of_one_length_share_a_batch(editor, clip):
    requests = [
        EditRequest(audio=(clip, RATE), prompt="x", num_inference_steps=1, extend=extend)
        for extend in (None, (1, 0), (0, 1))
    ]
    together = editor.edit(requests, batch_size=3, progress=False)
    for request, result in zip(requests, together, strict=True):
        assert torch.allclose(editor.edit(request, progress=False).waveform, result.waveform, atol=1e-4)
