"""The report of the pocket backbone: the command line end to end, the table, and what it says when something is missing."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pocket_tools import batch, pocket_folder, tones
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apa_lightning import InputError
from apa_lightning.audio import save_audio
from apa_lightning.cli.main import main
from apa_lightning.pocket.report import report
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.recordings import load_recordings
from apa_lightning.pocket.report.report import PocketReport
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.table import COLUMNS, as_json, table
from apa_lightning.utils.pretrained import packaged

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])


def run(folder: Path, out: Path, *arguments: str) -> None:
    main(
        [
            "test",
            *("--config", "configs/pocket/report.yaml"),
            *("--model.folder", str(folder), "--model.out", str(out / "report"), "--model.quick", "true"),
            *("--data.num_workers", "0", "--trainer.default_root_dir", str(out)),
            *arguments,
        ]
    )


def recordings(folder: Path) -> Path:
    """Two recordings: 11.3 s of stereo at 44.1 kHz, and one that is too short."""
    folder.mkdir()
    for name, seconds in (("long", 11.3), ("short", 2.0)):
        wave = 0.3 * torch.sin(2 * math.pi * 330 * torch.arange(round(seconds * 44_100)) / 44_100)
        save_audio(folder / f"{name}.flac", torch.stack([wave, 0.5 * wave]), 44_100)
    return folder


def test_the_command_measures_every_part(tmp_path, capsys, monkeypatch):
    """All parts, with what they measure cut to the little that tells whether the report works."""
    heard = {}

    def stub(part):
        def measure(subject):
            heard[part] = subject
            if part == "clap":
                raise ValueError("Cannot have number of splits n_splits=5 greater than\nthe number of groups: 3.")
            return [Score(part, f"{part} score", 0.5, 0.4, 0.6, len(subject.clips), 0.1, {"shuffled": 0.2}, ">= 0.3")]

        return measure

    stubs = {part: measure._replace(measure=stub(part)) for part, measure in report.MEASURES.items()}
    monkeypatch.setattr(report, "MEASURES", stubs)
    folder = pocket_folder()
    with pytest.warns(UserWarning, match="clap: not measured on these 40 clips"):
        run(folder, tmp_path, "--model.recordings", str(recordings(tmp_path / "recordings")))
    assert list(heard) == list(report.DEFAULT)
    loa = heard["loa"]
    clips, real = loa.clips, loa.recordings
    assert (loa.folder, loa.seed, loa.pictures, len(clips)) == (folder, 0, tmp_path / "report", 40)
    assert clips.waveform.shape == (40, 81_920) and len(set(clips.keys)) == 40
    assert {fields["kind"] for fields in clips.metadata} == {"solo", "duet", "genre"}
    assert all(len(column) == 40 for column in (clips.prompts, clips.labels))
    assert real.keys == ["long-0", "long-1"] and real.waveform.shape == (2, 81_920)

    text = (tmp_path / "report" / "report.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(COLUMNS) and len(lines) == 8
    assert "| not measured: Cannot have number of splits" in text and "| 0.500 [0.400, 0.600] |" in text
    assert len({len(line) for line in lines}) == 1 and "\n".join(lines) in capsys.readouterr().out
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["clips"] == 40 and data["recordings"] == 2 and data["megabytes"]["vae"] > 0
    assert [figure["reached"] for figure in data["scores"]] == [True, True, None, True, True, True]
    assert data["scores"][2]["value"] is None
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent)).Reload()
    assert events.Scalars("report/loa/loa score")[0].value == 0.5 and events.Tags()["tensors"] == [
        "report/text_summary"
    ]


def test_the_command_on_random_weights(tmp_path, capsys):
    run(pocket_folder(), tmp_path, "--model.parts", "[loa]", "--data.validation_samples", "12")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| loa")]
    assert len(rows) == 4 and all("not measured" not in row for row in rows)
    assert (tmp_path / "report" / "loa.png").is_file()
    assert len(json.loads((tmp_path / "report" / "report.json").read_text())["scores"]) == 4


@pytest.mark.slow
def test_the_whole_command_on_random_weights(tmp_path, capsys):
    run(pocket_folder(), tmp_path, "--model.recordings", str(recordings(tmp_path / "recordings")))
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert {row[1].strip() for row in rows} == set(report.DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.parts", "[piano]"], "model.parts: 'piano' is unknown; choose from vae,"),
        (["--model.recordings", "nowhere"], "model.recordings: nowhere is not a folder"),
        (["--model.recordings", "configs"], "model.recordings: configs holds no sound files"),
        (["--model.folder", "nowhere"], "model.folder: nowhere lacks vae, vocoder,"),
        (["--model.parts", "[loa]", "--model.proof.points", "[{alpha: 1}]"], "model.proof.points: 'alpha' is not a knob"),
        (["--model.folder", "nowhere", "--model.parts", "[vae]"], "nowhere lacks vae. Make it first: python -m apa_lightning fit"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_measured(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        run(pocket_folder(), tmp_path, *arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_recordings_are_cut_into_windows(tmp_path):
    folder = recordings(tmp_path / "recordings")
    clips = load_recordings(folder, 16_000)
    assert clips.keys == ["long-0", "long-1", "long-2", "short-0", "short-1"]
    assert clips.waveform.shape == (5, 16_000) and clips.metadata[3] == {"melody": "short"}
    assert clips.waveform[0].square().mean() == pytest.approx((0.3 * 0.75) ** 2 / 2, rel=0.01)
    assert not torch.equal(clips.waveform[0], clips.waveform[1])
    # 11.3 s are too short for three windows of 5.12 s: they overlap, over the whole file.
    apart, spread = (load_recordings(folder, 81_920, overlap=overlap) for overlap in (0.0, 0.75))
    assert apart.keys == ["long-0", "long-1"] and spread.keys == ["long-0", "long-1", "long-2"]
    assert torch.equal(spread.waveform[2], load_recordings(folder, 180_800).waveform[0, 2 * 49_440 :][:81_920])
    with pytest.raises(InputError, match=r"none of 2 recordings lasts 20.00 s"):
        load_recordings(folder, 320_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"broken.wav"):
        load_recordings(folder, 16_000)


def test_the_table():
    figures = [
        Score("vae", "log-mel L1", 0.28712, 0.2799, 0.29, 300, 2.5, {"flat": 1.0}, "<= 0.35"),
        Score("clap", "recall", 12.0, 10.0, 14.0, 64, target=">= 13"),
        Score("loa", "too few clips", *[math.nan] * 3, 1, target=">= 0.2"),
        Score("vocoder", "small", 0.0001234, 0.0, 12345.6, 1),
    ]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(figures).splitlines()[2:]]
    assert rows == [
        ["vae", "log-mel L1", "<= 0.35", "0.287 [0.280, 0.290]", "2.50", "flat 1.00", "300", "yes"],
        ["clap", "recall", ">= 13", "12.0 [10.0, 14.0]", "", "", "64", "no"],
        ["loa", "too few clips", ">= 0.2", "", "", "", "1", ""],
        ["vocoder", "small", "", "0.000123 [0, 12346]", "", "", "1", ""],
    ]
    assert as_json(figures[2])["value"] is None and as_json(figures[2])["reached"] is None
    assert json.dumps([as_json(figure) for figure in figures], allow_nan=False)


def test_clips_are_spread_evenly():
    items = batch(tones(9, seconds=0.1))
    clips = Clips(items["waveform"], items["key"], items["prompt"], items["labels"], items["metadata"])
    assert clips.spread(3).keys == ["clip_0", "clip_3", "clip_6"] and clips.spread(40).keys == clips.keys


def test_without_clips_the_report_says_so():
    module = PocketReport(pocket_folder(), parts=["loa"])
    with pytest.raises(InputError, match="no clips to measure on"):
        module.on_test_epoch_end()


def test_the_recipes_write_into_one_folder_and_the_report_reads_the_shipped_one():
    def folder(name: str) -> str:
        return yaml.safe_load((ROOT / f"configs/pocket/{name}.yaml").read_text())["model"]["init_args"]["folder"]

    recipes = ("vae", "vocoder", "audio_mae", "text_encoder", "clap", "loa")
    assert {folder(name) for name in recipes} == {"runs/pocket/model"} and folder("report") is None
    assert PocketReport().folder == packaged()
