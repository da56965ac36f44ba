"""A working folder and manifests for the tests of planned edits."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import RATE, tone


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with recordings, sound and broken."""
    monkeypatch.chdir(tmp_path)
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.flac", 2.0)
    tone(tmp_path / "short.wav", 0.05)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "page.wav").write_text("<html>not found</html>")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:-9_000])
    return tmp_path
