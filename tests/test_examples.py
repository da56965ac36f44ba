"""The examples run: notebooks from the first cell to the last, with fewer steps; they are stored without outputs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
#: What a notebook's cell says, and what the test runs instead.
FEWER = {
    "steps = 25 ": "steps = 1 ",
    "train_steps, sources, edit_steps = 100, 4, 25": "train_steps, sources, edit_steps = 1, 1, 1",
}


def test_there_are_notebooks_and_they_are_stored_without_outputs():
    assert [path.stem for path in NOTEBOOKS] == ["edit", "train_and_evaluate"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path
        assert path.stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    (tmp_path / "examples").mkdir()
    shutil.copytree(ROOT / "docs" / "sounds", tmp_path / "docs" / "sounds")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    changed = 0
    for cell in notebook.cells:
        for said, instead in FEWER.items():
            changed += said in cell.source
            cell.source = cell.source.replace(said, instead)
    assert changed == 1
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path / "examples")}}
    ).execute()
    kinds = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert {path.name for path in (tmp_path / "examples").iterdir()} >= (
        {"violin.wav"} if path.stem == "edit" else {"runs", "evaluation", "published"}
    )


@pytest.mark.slow
def test_the_script_edits(tmp_path):
    soundfile.write(tmp_path / "piano.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000), 16000)
    arguments = [tmp_path / "piano.wav", "a recording of a violin solo", tmp_path / "violin.wav"]
    subprocess.run([sys.executable, ROOT / "examples" / "edit.py", *arguments], check=True, cwd=ROOT)
    assert soundfile.info(tmp_path / "violin.wav").frames == 16000
