"""EditSettings: a new knob is one field in one file, and appears wherever knobs do."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from random_folders import tiny_flags
from shard_tools import tone

from apa_lightning import EditRequest, InputError
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings

ROOT = Path(__file__).parents[2]
FIELD = '''    sparkle: float = knob(lambda value: is_number(value) and value >= 0, "give 0 or more", 1.5, symbol="sigma", point=True)
    """How much the result sparkles."""
'''
SCRIPT = """
import contextlib, csv, io, json, sys
from pathlib import Path
import datamodules
from apa_lightning import EditRequest, InputError
from apa_lightning.cli.main import main
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings
from apa_lightning.evaluation import rows, tasks

def said(call, stream=contextlib.redirect_stdout):
    with stream(io.StringIO()) as text, contextlib.suppress(SystemExit, InputError):
        call()
    return text.getvalue()

request = EditRequest(audio="a.wav", prompt="x", sparkle=2.5)
edits = {
    name: [edit.request.sparkle for edit in datamodules.EditsDataModule(manifest=name, sparkle=4.0).edits]
    for name in ("m.csv", "m.jsonl")
}
print(json.dumps({
    "help": said(lambda: main(["predict", "--help"])),
    "python": request.sparkle,
    "record": request.settings()["sparkle"],
    "batches": len({EditDefaults().fill(one).batch_key for one in (request, EditRequest(audio="a.wav", prompt="x"))}) == 2,
    "symbol": EditSettings.symbol("sparkle"),
    "edits": edits,
    "point": dict(tasks.Task("t", "{target}", ["piano"], point={"sparkle": 3.0}).point),
    "results": rows.KNOBS,
    "refused": said(lambda: main([*sys.argv[1:], "--data.sparkle=-1"]), contextlib.redirect_stderr),
}))
main(sys.argv[1:])
"""


@pytest.fixture
def with_a_new_knob(tmp_path) -> Path:
    """The packages as they are, but for one more field in ``settings.py``."""
    source = ROOT / "apa_lightning" / "editing" / "settings.py"
    text, place = source.read_text(), "    scheduler: str | None = knob("
    assert text.count(place) == 1
    packages = tmp_path / "packages"
    for folder in ("apa_lightning", "apa_lightning/editing"):
        (packages / folder).mkdir(parents=True)
        for path in (ROOT / folder).iterdir():
            if path.name not in ("editing", "__pycache__", source.name):
                (packages / folder / path.name).symlink_to(path)
    for package in ("datamodules", "callbacks"):
        (packages / package).symlink_to(ROOT / package)
    (packages / source.relative_to(ROOT)).write_text(text.replace(place, FIELD + place))
    return packages


def test_a_new_knob_is_one_field_in_one_file(with_a_new_knob, tmp_path):
    """It reaches --help, the flags, CSV and JSONL manifests, sweeps, results.jsonl, results.csv, and Python."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000)
    (tmp_path / "m.csv").write_text("id,audio,prompt,sparkle\none,a.wav,x,2\ntwo,a.wav,x,\n")
    lines = [
        {"id": "one", "audio": "a.wav", "prompt": "x", "sparkle": 3},
        {"id": "two", "audio": "a.wav", "prompt": "x"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = [*tiny_flags(64), "--model.adapter=null", "--trainer.accelerator=cpu", "--data.num_inference_steps=1"]
    command = ["predict", f"--config={ROOT}/configs/predict.yaml", *flags, "--data.manifest=m.csv", "--data.sparkle=4"]
    code = f"import sys; sys.path.insert(0, {str(with_a_new_knob)!r})\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[0])
    assert "--data.sparkle SPARKLE" in found["help"] and "How much the result sparkles." in found["help"]
    assert (found["python"], found["record"], found["batches"], found["symbol"]) == (2.5, 2.5, True, "sigma")
    assert found["edits"] == {"m.csv": [2.0, 4.0], "m.jsonl": [3, 4.0]}
    assert found["point"] == {"sparkle": 3.0} and "sparkle" in found["results"]
    assert "error: --data.sparkle: -1.0; give 0 or more." in found["refused"]
    lines = [json.loads(line) for line in (tmp_path / "edits" / "results.jsonl").read_text().splitlines()]
    assert {line["id"]: line["sparkle"] for line in lines} == {"one": 2.0, "two": 4.0}
    with open(tmp_path / "edits" / "results.csv", encoding="utf-8-sig", newline="") as file:
        assert {row["id"]: row["sparkle"] for row in csv.DictReader(file)} == {"one": "2.0", "two": "4.0"}


def test_every_knob_has_help():
    source = (ROOT / "apa_lightning" / "editing" / "settings.py").read_text()
    for name in EditSettings.names():
        field = source[source.index(f"\n    {name}: ") :]
        assert '\n    """' in field[: field.index("\n    def ")].split(" = knob(")[1], name


def test_settings_are_checked_once_and_everywhere():
    for call in (
        lambda: EditSettings(strength=2),
        lambda: EditSettings.check("strength", 2),
        lambda: EditRequest(audio="a.wav", prompt="x", strength=2),
    ):
        with pytest.raises(InputError, match=r"^strength: 2; give a share above 0, at most 1"):
            call()
    assert EditSettings(freq_pooling=None).freq_pooling is None
    with pytest.raises(InputError, match=r"^strength: None; "):
        EditSettings(strength=None)
    with pytest.raises(InputError, match=r"^guidance_scale: 1"):
        EditSettings(guidance_scale=10**400)


def test_requests_share_a_batch_where_the_sampler_can_keep_them_apart():
    def key(**settings):
        return EditDefaults().fill(EditSettings(**settings)).batch_key

    assert key(guidance_scale=3.0, seed=5, negative_prompt="noise", region=(0, 1)) == key(
        sample_rate=8_000, match_level=False
    )
    for settings in ({"guidance_scale": 1.0}, {"ap_scale": {"up": 0.5}}, {"strength": 0.5}, {"num_inference_steps": 5}):
        assert key(**settings) != key()
