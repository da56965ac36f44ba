"""README and ``docs/`` stay true: each command parses, each file that is named exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apa_lightning.cli.main import CLI, main
from apa_lightning.editing.settings import EditSettings
from datamodules import AudioSetDataModule

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = re.compile(r"^(?:python -m )?apa_lightning (.+)$")
#: A path of this repository in backticks or as the target of a link, as far as its first wildcard.
PATH = re.compile(r"[`(]((?:apa_lightning|callbacks|configs|datamodules|docs|examples|tests)/[\w./-]*)")


def commands() -> list[tuple[str, str]]:
    """Page and arguments of every command line of the program in a block of shell code."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if match := PROGRAM.match(" ".join(shlex.split(line, comments=True))):
                    arguments = shlex.split(line, comments=True)
                    found.append((page.name, shlex.join(arguments[arguments.index(match[1].split()[0]) :])))
    return found


def test_there_are_commands():
    assert len(commands()) > 20


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_of_the_documentation_parses(monkeypatch, page, command):
    def stop(cli: CLI) -> None:
        raise SystemExit(0)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])
    monkeypatch.setattr(CLI, "before_instantiate_classes", stop)
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command))
    assert end.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_documentation_exists(page):
    text = page.read_text()
    for name in PATH.findall(text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(name)), f"{page.name} names {name}"


def test_the_page_on_editing_names_each_knob():
    table = (ROOT / "docs" / "editing.md").read_text().split("## The knobs")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(EditSettings.names())


def test_every_make_target_of_the_documentation_and_the_workflows_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    named = {
        name
        for page in [*PAGES, *workflows]
        for name in re.findall(r"(?:^|`|run: )\s*make ([\w-]+)", page.read_text(), re.M)
    }
    assert {"demo", "test", "lint", "docs"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_code_of_the_documentation_compiles(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(block, page.name, "exec")


def test_the_site_builds_without_warnings(tmp_path, monkeypatch):
    pytest.importorskip("material", reason="pip install 'apa_lightning[docs]'")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    assert (tmp_path / "site" / "architecture" / "index.html").is_file()


def test_the_shards_of_one_s_own_recordings_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label, pitch in (("Piano", 440), ("Cello", 220)):
        (tmp_path / "recordings" / label).mkdir(parents=True)
        for number in range(6):
            wave = 0.3 * np.sin(2 * np.pi * (pitch + number) * np.arange(16_000) / 16_000)
            soundfile.write(f"recordings/{label}/{number}.wav", wave, 16_000)
    page = (ROOT / "docs" / "data.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page.split("## Your own recordings")[1].split("\n## ")[0], re.DOTALL)
    exec(code, {})
    shards = dict(re.findall(r'--data.(\w+) "(data/own/[^"]+)"', page))
    data = AudioSetDataModule(**shards, batch_size=2, num_workers=0, audio_length_in_s=1.0)
    data.setup("fit")
    labels = [
        [label for batch in loader for (label,) in batch["labels"]]
        for loader in (data.train_dataloader(), data.val_dataloader())
    ]
    assert sorted(labels[0]) == ["Cello"] * 5 + ["Piano"] * 5 and sorted(labels[1]) == ["Cello", "Piano"]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/editing.md"])
def test_python_code_of_the_documentation_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("piano.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000), 16000)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(block, {})
    assert soundfile.info("violin.wav").frames == 16000
