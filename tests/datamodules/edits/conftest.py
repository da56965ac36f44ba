"""A working folder and a tiny model for the tests of `predict`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edit_tools import IN_PAIRS, WINDOW, audio_bytes, command, fill
from random_folders import tiny_flags

from apa_lightning.cli.main import main


@pytest.fixture(scope="session")
def model() -> list[str]:
    """The tiny model with a window of 2.56 s, to be quick."""
    return tiny_flags(WINDOW)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with three recordings and a manifest of five edits."""
    fill(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(model, tmp_path_factory) -> dict[str, bytes]:
    """What one run gives that nothing disturbs, in batches of two."""
    with pytest.MonkeyPatch.context() as patch:
        fill(tmp_path_factory.mktemp("undisturbed"), patch)
        main(command(model, *IN_PAIRS))
        return audio_bytes()


@pytest.fixture
def predict(model) -> Callable[..., None]:
    """Run `predict` in this process; arguments are added to the usual ones."""
    return lambda *arguments: main(command(model, *arguments))
