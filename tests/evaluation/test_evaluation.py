"""`evaluate` through the command line: what it makes, keeps and refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from evaluation_rows import METRICS
from random_folders import tiny_backbone, tiny_flags, tiny_musicgen

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.cli.main import main
from apa_lightning.evaluation.rows import read_rows
from apa_lightning.evaluation.tasks import Task

ROOT = Path(__file__).parents[2]
WINDOW = 64
EDITORS = ("sdedit", "ddpm_inversion", "direct_audio_edit")
SYSTEMS = ("adapter", "no_negative", "text_only", *EDITORS, "untrained", "no_op", "codec")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter that is no copy of the backbone's layers."""
    made = AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW)).new_adapter(None)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    made.save(path)
    return path


def melody(path: Path, notes: list[float], rate: int = 16_000) -> None:
    times = np.arange(int(rate * 0.3)) / rate
    decay = np.exp(-3 * times)
    soundfile.write(path, 0.4 * np.concatenate([np.sin(2 * np.pi * note * times) * decay for note in notes]), rate)


@pytest.fixture
def songs(tmp_path, monkeypatch) -> Path:
    """A folder of three recordings named by their instruments, and a working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["apa_lightning"])
    return write_songs(tmp_path / "songs")


@pytest.fixture(scope="module")
def finished(adapter, tmp_path_factory) -> Path:
    """A working folder whose three recordings have been evaluated; each test takes a copy."""
    folder = tmp_path_factory.mktemp("finished")
    write_songs(folder / "songs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["apa_lightning"])
        main(command(adapter))
    return folder


@pytest.fixture
def evaluated(finished, tmp_path, monkeypatch) -> None:
    """A copy of a finished evaluation as the working folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["apa_lightning"])


def write_songs(folder: Path) -> Path:
    folder.mkdir()
    melody(folder / "piano_0.wav", [440, 494, 523, 587])
    melody(folder / "erhu_1.wav", [392, 330, 349, 262], 22_050)
    melody(folder / "acoustic_guitar_0.wav", [220, 330, 277, 247])
    return folder


def command(adapter: Path, *more: str, name: str = "evaluate", task: str = "timbre") -> list[str]:
    return [
        name, "--config", str(ROOT / "configs/evaluate.yaml"), "--config", str(ROOT / f"configs/tasks/{task}.yaml"),
        *tiny_flags(WINDOW), f"--model.adapter={adapter}", "--data.sources=songs", "--data.output=out",
        "--data.num_inference_steps=2", *more,
    ]  # fmt: skip


def rows_of(folder: Path = Path("out")) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def made_at(folder: Path = Path("out")) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.wav")}


def refused(capsys, args: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_every_system_on_the_same_sources_prompts_and_seeds(songs, adapter, capsys):
    main(command(adapter, f"--data.systems=[{','.join(SYSTEMS)}]"))
    rows = rows_of()
    assert {row["system"] for row in rows} == set(SYSTEMS) and len(rows) == 3 * len(SYSTEMS)
    for row in rows:
        assert soundfile.info(f"out/{row['output']}").frames == soundfile.info(f"out/{row['audio']}").frames
    by_system = {name: [row for row in rows if row["system"] == name] for name in SYSTEMS}
    for name in ("no_negative", "text_only", "sdedit", "untrained"):
        for ours, other in zip(by_system["adapter"], by_system[name], strict=True):
            for field in ("id", "prompt", "seed", "guidance_scale", "num_inference_steps"):
                assert ours[field] == other[field], (name, field)
    assert [row["negative_prompt"] for row in by_system["no_negative"]] == ["", "", ""]
    assert [{row["strength"] for row in by_system[name]} for name in EDITORS] == [{"0.75"}, {"0.5"}, {"1.0"}]
    for row in (*by_system["ddpm_inversion"], *by_system["direct_audio_edit"]):
        assert (row["num_inference_steps"], row["scheduler"], row["guidance_scale"]) == ("2", "DDIMScheduler", "")
    assert all(row["seed"] == row["prompt"] == "" for row in by_system["no_op"])
    assert {row["negative_prompt"] for row in by_system["adapter"]} == {
        f"a recording of the {name} solo" for name in ("piano", "erhu", "acoustic guitar")
    }
    for row in by_system["no_op"]:
        assert float(row["chroma"]) == pytest.approx(1) and float(row["melody"]) == 1 and float(row["lpaps"]) == 0
        assert float(row["delta_clap"]) == 0 and float(row["chroma_floor"]) < 0.9
    bytes_of = {name: Path(f"out/{by_system[name][0]['output']}").read_bytes() for name in SYSTEMS}
    assert len(set(bytes_of.values())) == len(SYSTEMS)  # no system is another one by mistake
    figures = json.loads(Path("out/set_metrics.json").read_text())
    kad = {entry["system"]: entry["value"] for entry in figures if entry["metric"] == "kad"}
    assert kad["codec"] is not None and kad["codec"] > kad["no_op"]
    fad = [entry for entry in figures if entry["metric"] == "fad"]
    assert all(entry["value"] is None and "needs" in entry["why"] for entry in fad)  # far too few for a figure
    about = json.loads(Path("out/evaluation.json").read_text())
    assert about["set"] == "songs" and about["sources"] == 3 and set(about["systems"]) == set(SYSTEMS)
    for name in ("table1.md", "report.html"):
        assert Path(f"out/{name}").stat().st_size > 500
    kept = read_rows(Path("out"))[0]
    assert kept.scores.keys() == METRICS.keys() and kept.columns == METRICS


def test_repeated_it_redoes_nothing_and_a_changed_knob_just_what_depends_on_it(evaluated, adapter):
    first, rows = made_at(), rows_of()
    measured = {path.name for path in Path("out/measures").iterdir()}
    main(command(adapter))
    assert made_at() == first and rows_of() == rows
    main(command(adapter, "--data.ap_scale=0.8", "--data.audio_guidance_scale=2"))
    changed = {path.split("/")[2] for path, time in made_at().items() if time != first[path]}
    assert changed == {"adapter", "no_negative"}
    main(command(adapter, "--data.ap_scale=0.8", "--data.text_guidance_scale=3"))
    changed = {path.split("/")[2] for path, time in made_at().items() if time != first[path]}
    assert changed == {"adapter", "no_negative", "text_only", "sdedit"}
    assert measured < {path.name for path in Path("out/measures").iterdir()}


def test_another_adapter_leaves_alone_what_it_does_not_take_part_in(evaluated, adapter, tmp_path):
    first = made_at()
    other = AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW)).new_adapter(None)
    other.save(tmp_path / "other.safetensors")
    main(command(tmp_path / "other.safetensors"))
    changed = {path.split("/")[2] for path, time in made_at().items() if time != first[path]}
    assert changed == {"adapter", "no_negative"}


def test_what_an_interruption_has_left_is_continued(evaluated, adapter):
    whole, rows = {path: Path("out", path).read_bytes() for path in made_at()}, rows_of()
    lines = Path("out/results.jsonl").read_text().splitlines(keepends=True)
    Path("out/results.jsonl").write_text("".join(lines[:7]))
    for path in list(made_at())[10:]:
        Path("out", path).unlink()
    for path in list(Path("out/measures").iterdir())[:5]:
        path.write_bytes(path.read_bytes()[:100])  # torn
        path.with_name(f".{path.stem}.01234567.tmp.npz").touch()
    for half in (".report.01234567.tmp.html", "plots/.trade_off.01234567.tmp.png", ".results.01234567.tmp.csv"):
        Path("out", half).touch()
    main(command(adapter, "--data.overwrite=true"))
    assert not list(Path("out").rglob("*.tmp.*"))
    assert {path: Path("out", path).read_bytes() for path in made_at()} == whole
    assert rows_of() == rows


@pytest.mark.slow
def test_musicgen_melody_of_the_real_class_takes_part(songs, adapter):
    """Random weights: what is tried is loading, chroma, lengths, rates, and that a result is its own seed's."""
    musicgen = [f"--data.musicgen={tiny_musicgen()}", "--data.systems=[no_op]"]
    main(command(adapter, *musicgen))
    mine = [row for row in rows_of() if row["system"] == "musicgen_melody"]
    made = {row["id"]: Path(f"out/{row['output']}").read_bytes() for row in mine}
    assert len(mine) == 3 and all(row["clap"] and row["guidance_scale"] == "" for row in mine)
    for row in mine:
        assert soundfile.info(f"out/{row['output']}").frames == soundfile.info(f"out/{row['audio']}").frames
    main(command(adapter, *musicgen, "--data.output=again", "--data.num_sources=1"))
    [row] = [row for row in rows_of(Path("again")) if row["system"] == "musicgen_melody"]
    assert Path(f"again/{row['output']}").read_bytes() == made[row["id"]]


def test_three_tasks_each_at_its_operating_point(songs, adapter):
    main(command(adapter, "--data.systems=[adapter,no_op]", "--data.num_sources=1", task="all"))
    rows = {row["task"]: row for row in rows_of() if row["system"] == "adapter"}
    points = {task: (float(row["ap_scale"]), int(row["time_pooling"])) for task, row in rows.items()}
    assert points == {"timbre": (0.5, 2), "genre": (0.4, 1), "accompaniment": (0.5, 2)}
    assert rows["genre"]["prompt"] == f"{rows['genre']['target']} style music"
    duet = rows["accompaniment"]
    assert duet["instrument"] in duet["score_text"] and duet["target"] in duet["score_text"]
    assert duet["prompt"] == f"Duet, played with {duet['target']} accompaniment"
    assert rows["timbre"]["recognised"] in ("0", "1") and rows["genre"]["recognised"] == ""


def test_tasks_agree_with_the_file_of_all_three():
    def read(name: str) -> dict:
        return yaml.safe_load((ROOT / f"configs/tasks/{name}.yaml").read_text())["data"]["init_args"]

    for task in read("all")["tasks"]:
        assert read(task["name"]) == {"tasks": [task], "task": task["name"]}


def test_the_embedded_set_has_five_of_each_of_eight_instruments(tmp_path):
    from datamodules.evaluation_sets import chosen, read_set

    name, sources = read_set("embedded", None, tmp_path)
    instruments = [source.instrument for source in sources]
    assert name == "embedded" and len(sources) == 40 and len({source.path.read_bytes() for source in sources}) == 40
    assert {instruments.count(instrument) for instrument in instruments} == {5} and len(set(instruments)) == 8
    task = Task("t", "{target}", ["piano"])
    assert len({source.instrument for source in chosen(sources, 8, [task])}) == 8
    (sources[0].path.parent / ".piano_0.01234567.tmp.wav").touch()  # of a killed process
    assert read_set("embedded", None, tmp_path)[1] == sources
    assert {path.parent for path in (tmp_path / "sources").rglob("*.*")} == {sources[0].path.parent}
    assert not list(tmp_path.rglob("*.tmp.wav"))


def test_a_sweep_picks_a_point_that_predict_and_evaluate_accept(songs, adapter, capsys):
    grid = "--data.grid={ap_scale: [0.2, 0.5, 0.9], time_pooling: [1, 4], strength: [0.5]}"
    main(
        command(adapter, grid, "--data.systems=[adapter,text_only,sdedit,no_op]", "--data.num_sources=2", name="sweep")
    )
    systems = {row["system"] for row in rows_of()}
    assert systems == {
        "adapter", "text_only", "sdedit", "no_op", "adapter ap_scale=0.2", "adapter ap_scale=0.9",
        "adapter time_pooling=1", "adapter time_pooling=4", "sdedit strength=0.5",
    }  # fmt: skip
    point = Path("out/operating_point_timbre.yaml")
    text = point.read_text()
    point.unlink()
    main(["sweep", "--results=out"])  # from results.csv alone
    assert point.read_text() == text
    chosen = yaml.safe_load(point.read_text())["data"]["init_args"]
    main(
        [
            *command(adapter, "--data.num_sources=1", "--data.systems=[adapter]", "--data.output=again"),
            "--config",
            str(point),
        ]
    )
    row = rows_of(Path("again"))[0]
    assert (float(row["ap_scale"]), int(row["time_pooling"])) == (chosen["ap_scale"], chosen["time_pooling"])


def test_findings_have_a_verdict_each(songs, adapter, capsys):
    grid = "--data.grid={ap_scale: [0.2, 0.9], time_pooling: [1, 4], guidance_scale: [3.5], strength: [0.5]}"
    main(command(adapter, grid, "--data.num_sources=2"))
    main(["findings", "--results=out"])
    said = Path("out/findings.md").read_text()
    assert said.count("shown") + said.count("not measured") >= 6
    assert "(f)" in capsys.readouterr().out


BAD = {
    "no task": (["--data.tasks=[]"], "a task"),
    "no folder": (["--data.sources=nowhere"], "not a folder"),
    "empty folder": (["--data.sources=empty"], "holds no"),
    "unknown instrument": (["--data.sources=numbers"], "is not known"),
    "silence": (["--data.sources=silent"], "silence"),
    "a csv without columns": (["--data.instruments=bad.csv"], "needs the columns"),
    "a csv that lacks a file": (["--data.instruments=short.csv"], "is not known"),
    "unknown system": (["--data.systems=[adapter,musicbox]"], "choose from"),
    "a system twice": (["--data.systems=[adapter,adapter]"], "twice"),
    "no weights of MusicGen": (["--data.systems=[musicgen_melody]"], "--data.musicgen"),
    "no MusicGen there": (["--data.musicgen=songs"], "--data.musicgen"),
    "a knob in the grid": (["--data.grid={volume: [1]}"], "not a knob"),
    "a value in the grid": (["--data.grid={time_pooling: [3]}"], "time_pooling"),
    "an empty grid": (["--data.grid={ap_scale: []}"], "list of values"),
    "no sources": (["--data.num_sources=0"], "num_sources"),
    "no targets": (["--data.targets_per_source=0"], "targets_per_source"),
    "no VGGish": (["--data.embedding=vggish"], "vggish-10086976.pth"),
    "unknown embedding": (["--data.embedding=mert"], "mert"),
    "no CLAP": (["--data.clap=songs"], "clap"),
    "no reference": (["--data.reference=nowhere"], "not a folder"),
    "a folder of predict's": (["--data.folder=songs"], "folder"),
    "no device": (["--device=cuda:99"], "--device"),
    "no adapter": (["--model.adapter=null"], "--model.adapter"),
    "a text without its target": (["--data.tasks=[{name: t, prompt: a solo, targets: [harp]}]"], "{target}"),
    "no target in a task": (['--data.tasks=[{name: t, prompt: "{target}", targets: []}]'], "targets"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message(name, songs, adapter, capsys):
    for folder in ("empty", "numbers", "silent"):
        Path(folder).mkdir()
    melody(Path("numbers/001.wav"), [440])
    soundfile.write("silent/piano_0.wav", np.zeros(16_000), 16_000)
    Path("bad.csv").write_text("a,b\n1,2\n")
    Path("short.csv").write_text("file,instrument\npiano_0.wav,piano\n")
    more, words = BAD[name]
    said = refused(capsys, command(adapter, *more))
    assert words in said and "Traceback" not in said
    assert not Path("out/results.csv").exists()


def test_one_clip_is_evaluated_without_floors(songs, adapter):
    main(command(adapter, "--data.num_sources=1", "--data.systems=[adapter,no_op]"))
    assert [row["chroma_floor"] for row in rows_of()] == ["", ""]
    assert all(row["chroma"] for row in rows_of())
