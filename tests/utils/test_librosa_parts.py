"""librosa's modules are imported under a lock."""

import re
from pathlib import Path

from apa_lightning.utils import librosa_parts
from apa_lightning.utils.atomic_files import file_lock

ROOT = Path(__file__).parents[2]


def test_one_process_at_a_time_imports(tmp_path, monkeypatch):
    """While it does, no other process can hold the lock next to numba's cache; afterwards any can."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    held = []

    def imported(name):
        with file_lock(tmp_path / "librosa-compilation.lock", wait=False) as free:
            held.append((name, not free))
        return name

    monkeypatch.setattr(librosa_parts.importlib, "import_module", imported)
    for name in ("onset", "onset", "beat"):
        assert librosa_parts.librosa_part.__wrapped__(name) == f"librosa.{name}"
    assert {"librosa.util.utils", "librosa.core.pitch", "librosa.onset", "librosa.beat"} <= {name for name, _ in held}
    assert all(locked for _, locked in held)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr(librosa_parts.importlib, "import_module", str)
    assert librosa_parts.librosa_part.__wrapped__("core") == "librosa.core"


def test_nothing_imports_librosa_past_the_lock():
    """But for modules that compile nothing; an edit needs no others."""
    for folder in ("apa_lightning", "datamodules", "callbacks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "librosa_parts.py":
                found = set(re.findall(r"^\s*(?:import|from) (librosa\b[\w.]*)", path.read_text(), re.MULTILINE))
                assert found <= {"librosa.filters", "librosa.core.convert"}, path
