"""A tiny SoundFont for the tests of rendered music."""

import pytest
from soundfont_tools import write_soundfont


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory):
    return write_soundfont(tmp_path_factory.mktemp("soundfont") / "tiny.sf2")
