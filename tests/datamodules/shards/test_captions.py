"""Captions from labels."""

import functools

import numpy as np
import pytest

from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for
from datamodules.shards.captions import TEMPLATES, CaptionTemplates, lower_first


def test_fifteen_templates_are_drawn_alike() -> None:
    assert len(set(TEMPLATES)) == 15 and {"a recording of a {}", "the sound of {}"} <= set(TEMPLATES)
    captions = CaptionTemplates()
    drawn = [captions.caption(["Piano"], None, generator_for(0, "x", i)) for i in range(3000)]
    counts = np.array([drawn.count(t.replace("{}", "piano")) for t in TEMPLATES])
    assert counts.sum() == 3000 and ((counts - 200) ** 2 / 200).sum() < 36.1  # chi-square, 14 degrees, p = 0.001


def test_labels_are_joined_and_stored_captions_win_by_choice() -> None:
    captions = CaptionTemplates(["[{}]"])
    draw = functools.partial(generator_for, 0)
    assert captions.caption(["Violin, fiddle", "R&B"], None, draw()) == "[violin, fiddle, R&B]"
    assert captions.caption(["Piano"], "  A sad song ", draw()) == "A sad song"
    assert captions.caption(["Piano"], " ", draw()) == "[piano]"
    assert CaptionTemplates(["[{}]"], False, False).caption(["Piano {}"], "A sad song", draw()) == "[Piano {}]"


def test_only_the_first_letter_is_lowered() -> None:
    kept = ("MIDI", "R&B", "a capella", "")
    lowered = ("Heavy metal", "Music of Latin America", "A capella", "Hip hop music", "Violin, fiddle")
    assert [lower_first(label) for label in kept] == list(kept)
    assert [lower_first(label) for label in lowered] == [label[0].lower() + label[1:] for label in lowered]


@pytest.mark.parametrize("templates", [[], ["no place"], ["{} and {}"]])
def test_bad_templates(templates: list[str]) -> None:
    with pytest.raises(InputError, match=r"caption_templates: "):
        CaptionTemplates(templates)
