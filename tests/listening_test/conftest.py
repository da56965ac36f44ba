"""A built listening test."""

from pathlib import Path

import pytest
from listening_tools import write_evaluation

from apa_lightning.listening_test.build import build


@pytest.fixture(autouse=True)
def _arguments_of_the_tests_own(monkeypatch):
    monkeypatch.setattr("sys.argv", ["apa_lightning"])


@pytest.fixture
def evaluation(tmp_path) -> Path:
    return write_evaluation(tmp_path / "evaluation")


@pytest.fixture
def test(evaluation, tmp_path) -> Path:
    (tmp_path / ".test.tmp" / "page").mkdir(parents=True)  # of a build that was killed
    build(evaluation, tmp_path / "test", sets_per_task=2)
    assert not (tmp_path / ".test.tmp").exists()
    return tmp_path / "test"
