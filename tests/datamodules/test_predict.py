"""`predict` through the command line: files, skipping, failures, and what is left after a kill."""

import csv
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from random_folders import tiny_flags, tiny_parts
from recordings import tone

from apa_lightning import AudioEditor
from apa_lightning.cli.main import main

FORK = multiprocessing.get_context("fork")  # a second process without importing everything again
WINDOW = 64
IN_PAIRS = ("--data.manifest=m.csv", "--data.batch_size=2")
EDITS = [("violin", "a.wav"), ("flute", "a.wav"), ("harp", "b.flac"), ("organ", "c.wav"), ("cello", "b.flac")]


@pytest.fixture(scope="session")
def model() -> list[str]:
    """The tiny model with a window of 2.56 s, to be quick."""
    return tiny_flags(WINDOW)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with three recordings and a manifest of five edits."""
    fill(tmp_path, monkeypatch)
    return tmp_path


def fill(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setattr("sys.argv", ["apa_lightning"])
    tone(folder / "a.wav", 1.0, 440, 44_100)
    soundfile.write("b.flac", np.random.default_rng(0).normal(0, 0.05, (8_000, 2)), 16_000)
    tone(folder / "c.wav", 3.0, 220, 22_050)  # longer than the window
    write_manifest(EDITS)


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


def command(model: list[str], *arguments: str) -> list[str]:
    return [
        "predict",
        "--model=apa_lightning.AudioPromptModule",
        *model,
        "--data=datamodules.EditsDataModule",
        "--data.num_inference_steps=1",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.callbacks+=callbacks.PredictionWriter",
        *(arguments or ["--data.manifest=m.csv"]),
    ]


def write_manifest(edits, name: str = "m.csv", **more: list[str]) -> None:
    header = ["id", "audio", "prompt", *more]
    with open(name, "w", newline="") as file:
        rows = (
            [edit, audio, f"{edit}, solo", *cells] for (edit, audio), *cells in zip(edits, *more.values(), strict=True)
        )
        csv.writer(file).writerows([header, *rows])


def records(folder: str = "edits") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def audio_bytes(folder: str = "edits") -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.suffix in (".wav", ".flac")
    }


def refusal(predict, capsys, *arguments: str) -> str:
    """The one error of a command that must end with 2."""
    with pytest.raises(SystemExit) as exit_:
        predict(*arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("error: ") :]


def test_files_records_and_summary(here, predict, capsys):
    predict("--data.manifest=m.csv", "--data.seed=3")
    out = capsys.readouterr().out
    assert "made     5  (" in out
    assert "skipped  0" in out
    assert "failed   0" in out
    for record, (edit, audio) in zip(records(), sorted(EDITS, key=lambda e: e[1] == "c.wav"), strict=True):
        assert (record["id"], record["status"], record["output"], record["audio"]) == (
            edit,
            "done",
            f"{edit}.wav",
            audio,
        )
        assert (record["prompt"], record["seed"], record["num_inference_steps"], record["ap_scale"]) == (
            f"{edit}, solo",
            3,
            1,
            0.5,
        )
        source, result = soundfile.info(audio), soundfile.info(f"edits/{edit}.wav")
        assert (result.samplerate, result.frames, result.channels) == (source.samplerate, source.frames, 1)
        assert record["seconds"] == pytest.approx(source.duration, abs=1e-3)
        assert all(record[name] for name in ("adapter_digest", "backbone", "finished", "sha256"))
        assert record["timings"].keys() == {"encode", "denoise", "decode"}
        expected = soundfile.read(audio, always_2d=True)[0].mean(1)
        assert record["rms"] == pytest.approx(np.sqrt((expected**2).mean()), rel=0.01) or record["peak"] == 1.0
    with open("edits/results.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in table] == [record["id"] for record in records()]
    assert float(table[0]["timings.denoise"]) > 0
    assert {path.name for path in Path("edits/.claims").iterdir()} == {"results.lock"}
    assert not list(Path("edits").glob(".*.tmp*"))


def test_is_the_editor(here, predict):
    """`predict` is `AudioEditor.edit` under a Trainer: the same samples."""
    predict("--data.manifest=m.csv", "--data.negative_prompt=piano", "--data.num_inference_steps=2")
    editor = AudioEditor.from_pretrained(**tiny_parts(WINDOW))
    result = editor.edit("a.wav", prompt="violin, solo", negative_prompt="piano", num_inference_steps=2, progress=False)
    result.save("alone.wav")
    assert Path("alone.wav").read_bytes() == Path("edits/violin.wav").read_bytes()


def test_again_makes_only_what_is_missing_or_changed(here, predict, capsys):
    predict()
    first, lines = audio_bytes(), len(records())

    predict()
    assert "made     0" in (out := capsys.readouterr().out)
    assert "skipped  5  (done before)" in out
    assert (audio_bytes(), len(records())) == (first, lines)

    Path("edits/harp.wav").unlink()
    Path("edits/organ.wav").write_bytes(first["organ.wav"][:1000])  # damaged
    os.utime("a.wav")  # touched, not changed
    predict()
    assert "made     2" in capsys.readouterr().out
    assert audio_bytes() == first
    assert {record["id"] for record in records()[lines:]} == {"harp", "organ"}

    tone(Path("a.wav"), 1.0, 330, 44_100)
    predict()
    assert "made     2" in capsys.readouterr().out
    assert {name for name, data in audio_bytes().items() if data != first[name]} == {"violin.wav", "flute.wav"}

    text = Path("m.csv").read_text()
    Path("m.csv").write_text(text.replace("cello, solo", "double bass"))
    predict()
    assert "made     1" in capsys.readouterr().out
    assert records()[-1]["prompt"] == "double bass"

    predict("--data.manifest=m.csv", "--data.guidance_scale=3")
    assert "made     5" in capsys.readouterr().out
    assert len(Path("edits/results.csv").read_text().splitlines()) == 6


def test_another_adapter_makes_all_anew(here, predict, capsys):
    predict()
    adapter = AudioEditor.from_pretrained(**tiny_parts(WINDOW)).adapters[0]
    with torch.no_grad():
        next(adapter.parameters()).add_(0.1)
    adapter.save("other.safetensors")
    capsys.readouterr()
    predict("--data.manifest=m.csv", "--model.adapter=other.safetensors")
    assert "made     5" in capsys.readouterr().out
    assert len({record["adapter_digest"] for record in records()}) == 2


def test_griffin_lim_in_place_of_the_vocoder(here, predict, capsys):
    predict(*IN_PAIRS)
    before = audio_bytes()
    predict(*IN_PAIRS, "--model.vocoder=griffin_lim")
    after = audio_bytes()
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)
    predict(*IN_PAIRS, "--model.vocoder=griffin_lim")
    assert audio_bytes() == after
    with pytest.raises(SystemExit):
        predict(*IN_PAIRS, "--model.vocoder=wavenet")
    assert "griffin_lim" in capsys.readouterr().err


def test_batches_are_alone_in_their_bytes(here, predict):
    """What a batch gives does not depend on which part of it was done before."""
    write_manifest([(str(i), "a.wav") for i in range(5)])
    predict("--data.manifest=m.csv", "--data.batch_size=3")
    first = audio_bytes()
    for name in ("1.wav", "4.wav"):
        Path("edits", name).unlink()
    predict("--data.manifest=m.csv", "--data.batch_size=3")
    assert audio_bytes() == first
    assert [record["id"] for record in records()] == ["0", "1", "2", "3", "4", "1", "4"]


def test_folder_with_subfolders(here, predict, capsys):
    tone(here / "clips" / "x.wav", 0.5)
    tone(here / "clips" / "deep" / "y.ogg", 0.5)
    predict("--data.folder=clips", "--data.prompt=harp", "--data.output=top")
    assert audio_bytes("top").keys() == {"x.wav"}
    assert "its subfolders hold 1: `recursive` true searches them" in capsys.readouterr().out
    predict("--data.folder=clips", "--data.recursive=true", "--data.prompt=harp", "--data.output=out")
    assert audio_bytes("out").keys() == {"x.wav", "deep/y.wav"}
    assert [record["id"] for record in records("out")] == ["deep/y", "x"] or [
        record["id"] for record in records("out")
    ] == ["x", "deep/y"]


def test_broken_recording_fails_alone(here, predict, capsys):
    """Headers look well, the middle does not: found while the run goes on; the rest is made."""
    samples = np.random.default_rng(0).normal(0, 0.1, 8 * 16_000)
    soundfile.write("whole.flac", samples, 16_000)
    samples[100_000] = np.nan
    soundfile.write("nan.wav", samples, 16_000, subtype="FLOAT")
    Path("cut.flac").write_bytes(Path("whole.flac").read_bytes()[:-20_000])
    write_manifest([("one", "a.wav"), ("bad", "nan.wav"), ("cut", "cut.flac"), ("two", "b.flac")])
    error = refusal(predict, capsys)
    assert error.startswith("error: predict: 2 of 4 edits failed; the others are finished.")
    assert "bad: nan.wav: contains NaN" in error
    assert "cut: cut.flac" in error
    assert audio_bytes().keys() == {"one.wav", "two.wav"}
    assert {record["id"]: record["status"] for record in records()} == {
        "one": "done",
        "bad": "failed",
        "cut": "failed",
        "two": "done",
    }

    tone(here / "nan.wav", 1.0)
    tone(here / "cut.flac", 1.0)
    predict()
    assert [record["id"] for record in records() if record["status"] == "done"].count("one") == 1
    assert audio_bytes().keys() == {"one.wav", "two.wav", "bad.wav", "cut.wav"}


def test_unreadable_recordings_can_be_left_out(here, predict, capsys):
    """One is known to be broken from its header, one breaks in the middle; both are named, and the command succeeds."""
    samples = np.random.default_rng(0).normal(0, 0.1, 8 * 16_000)
    samples[100_000] = np.nan
    tone(here / "songs" / "good.opus", 0.5, rate=48_000, format="OGG", subtype="OPUS")
    Path("songs/text.wav").write_text("no sound")
    Path("songs/phone.m4a").write_bytes(b"x")
    soundfile.write("songs/nan.wav", samples, 16_000, subtype="FLOAT")
    folder = ("--data.folder=songs", "--data.prompt=harp")
    error = refusal(predict, capsys, *folder)
    assert "songs/text.wav: not a readable audio file" in error
    assert "--data.skip_unreadable true" in error

    predict(*folder, "--data.skip_unreadable=true")
    out = capsys.readouterr().out
    assert "made     1" in out
    assert "failed   0" in out
    assert "unread   2" in out
    assert "1 .m4a not read: convert" in out
    assert "\n  nan: songs/nan.wav: contains NaN" in out.replace(f"{here}/", "")
    assert "\n  text: songs/text.wav: not a readable audio file" in out.replace(f"{here}/", "")
    assert audio_bytes().keys() == {"good.wav"}
    assert {record["id"]: record["status"] for record in records()} == {
        "good": "done",
        "text": "unreadable",
        "nan": "unreadable",
    }
    Path("songs/good.opus").unlink()
    Path("songs/nan.wav").unlink()
    assert "text.wav: not a readable audio file" in refusal(predict, capsys, *folder, "--data.skip_unreadable=true")


def test_a_region_of_a_recording_above_1_needs_wav(here, predict, capsys):
    soundfile.write("hot.wav", 2 * np.sin(np.arange(16_000) / 9), 16_000, subtype="FLOAT")
    write_manifest([("one", "hot.wav"), ("two", "hot.wav")], output=["one.wav", "two.flac"])
    error = refusal(predict, capsys, "--data.manifest=m.csv", "--data.region=[0.2,0.6]")
    assert "1 of 2 edits failed" in error
    assert "two: output: two.flac cannot hold samples above 1, which hot.wav has. Name it .wav." in error
    result, _ = soundfile.read("edits/one.wav", dtype="float32")
    assert np.array_equal(result[:3_200], soundfile.read("hot.wav", dtype="float32")[0][:3_200])


def test_a_recording_is_decoded_once(here, predict, monkeypatch):
    """The plan reads headers and first seconds; at its turn the whole recording is read for the edit, and never again."""
    reads, read = [], soundfile.SoundFile.read

    def spy(self, frames=-1, *arguments, **options):
        reads.append((Path(self.name).name, frames / self.samplerate))
        return read(self, frames, *arguments, **options)

    tone(here / "long.wav", 7.0)
    write_manifest([("x", "long.wav")])
    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    predict()
    assert reads == [("long.wav", 5.0), ("long.wav", 7.0)]


def test_a_half_written_note_goes_with_the_next_run(here, predict):
    """A process killed while it noted what it makes, of edits that are not asked for any more, or gave a claim back."""
    claims = Path("edits/.claims")
    claims.mkdir(parents=True)
    (claims / "fedcba9876543210.lock").touch()
    (claims / ".0123456789abcdef.01234567.tmp.json").write_text('["harp.w')
    predict()
    assert {path.name for path in claims.iterdir()} == {"results.lock"}


def test_result_with_nan_fails_alone(here, predict, capsys, monkeypatch):
    edit = AudioEditor.edit

    def spoilt(self, audio, **options):
        results = edit(self, audio, **options)
        return [replace(r, waveform=r.waveform * float("nan")) if r.request.id == "flute" else r for r in results]

    monkeypatch.setattr(AudioEditor, "edit", spoilt)
    assert "flute: " in refusal(predict, capsys)
    assert audio_bytes().keys() == {f"{edit}.wav" for edit, _ in EDITS if edit != "flute"}


def test_foreign_files_are_not_replaced(here, predict, capsys):
    Path("edits").mkdir()
    tone(Path("edits/harp.wav"))
    mine = Path("edits/harp.wav").read_bytes()
    error = refusal(predict, capsys)
    assert "m.csv:4: output: edits/harp.wav exists and was not made by predict" in error
    assert audio_bytes() == {"harp.wav": mine}
    predict("--data.manifest=m.csv", "--data.overwrite=true")
    assert Path("edits/harp.wav").read_bytes() != mine

    tone(Path("edits/harp.wav"))  # by hand, over the result
    assert "edits/harp.wav was changed after it was made" in refusal(predict, capsys)
    assert Path("edits/harp.wav").read_bytes() == mine


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.manifest=m.csv", "--data.scheduler=Magic"], "scheduler: 'Magic' is not usable with this backbone"),
        (
            ["--data.manifest=m.csv", "--data.ap_scale={'down_blocks.7': 1}"],
            "ap_scale: no adapted layer in 'down_blocks.7'",
        ),
        (["--data.manifest=bad.csv"], "bad.csv:2: scheduler: 'Magic' is not usable"),
        (["--data.manifest=bad.csv"], "bad.csv:3: num_inference_steps: DDIMScheduler cannot make 1000 steps"),
        (
            ["--data.manifest=m.csv", "--data.num_inference_steps=1000"],
            "--data.num_inference_steps: DDIMScheduler cannot make 1000 steps",
        ),
        (["--data.manifest=m.csv", "--data.output=a.wav"], "--data.output: cannot write to a.wav"),
        (["--data.manifest=m.csv", "--data.output=/proc/edits"], "--data.output: cannot write to /proc/edits"),
        (["--data.manifest=bad.csv"], "bad.csv:5: time_pooling: 128; choose one of 1, 2, 4, 8, 16"),
        (
            ["--data.manifest=bad.csv"],
            "bad.csv:6: freq_pooling: 16; choose one of 1, 2, 4, 8: the audio encoder's grid",
        ),
        (["--data.manifest=m.csv", "--data.time_pooling=3"], "--data.time_pooling: 3; choose one of 1, 2, 4, 8"),
        (["--data.manifest=gone.csv"], "--data.manifest: gone.csv does not exist"),
        ([*["--data.manifest=m.csv"], "--data.batch_size=0"], "--data.batch_size: 0"),
    ],
)
def test_refused_before_any_edit(here, predict, capsys, arguments, expected):
    write_manifest(
        [("x", "a.wav")], "bad.csv", scheduler=["Magic"], num_inference_steps=[""], time_pooling=[""], freq_pooling=[""]
    )
    with open("bad.csv", "a") as file:
        file.write(
            "y,a.wav,flute,DDIMScheduler,1000,,\nz,a.wav,flute,PNDMScheduler,2,,\nv,a.wav,flute,,,128,\nw,a.wav,flute,,,,16\n"
        )
    assert expected in refusal(predict, capsys, *arguments)
    assert not Path("edits").exists() or not audio_bytes()


def test_wrong_parts_are_named(here, model, capsys):
    with pytest.raises(SystemExit):
        main(command(model, "--data.manifest=m.csv", "--trainer.callbacks=null"))
    assert "trainer.callbacks: predict needs callbacks.PredictionWriter" in capsys.readouterr().err
    arguments = [
        argument
        for argument in command(model, "--data=datamodules.AudioSetDataModule")
        if not argument.startswith("--data.")
    ]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "predict edits what datamodules.EditsDataModule reads" in capsys.readouterr().err


def test_torn_and_foreign_lines_are_mended(here, predict, capsys):
    predict()
    first = audio_bytes()
    path = Path("edits/results.jsonl")
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"not JSON\n", *lines[1:]]) + last[: len(last) // 2])
    with pytest.warns(UserWarning, match=r"results\.jsonl: the line at byte \d+ is not readable"):
        predict()
    assert "made     1" in capsys.readouterr().out
    assert audio_bytes() == first
    assert path.read_bytes().splitlines()[1] == b"not JSON"
    assert len(path.read_bytes().splitlines()) == 6

    path.write_bytes(path.read_bytes()[:-1])  # only the line break is missing
    with pytest.warns(UserWarning, match="is not readable"):  # the line of before
        predict()
    assert "made     0" in capsys.readouterr().out
    assert path.read_bytes().endswith(b"\n")


# --- audio prompts ----------------------------------------------------------------------------------------------------


def test_audio_prompts_with_a_second_adapter(here, predict, capsys):
    """The command is the editor; an edit is made again where a file of its prompts has other content, and not where it moved."""
    adapter = AudioEditor.from_pretrained(**tiny_parts(WINDOW)).adapters[0]
    adapter.save("melody.safetensors")
    with torch.no_grad():
        next(adapter.parameters()).add_(0.5)
    adapter.save("timbre.safetensors")
    prompts = [{}, {"audio": "c.wav", "adapter": "timbre", "ap_scale": 0.3, "time_pooling": 16, "start": 0.5}]
    write_manifest([("one", "a.wav"), ("two", "b.flac")], audio_prompts=["", json.dumps([{"audio": "a.wav"}])])
    adapters = ["--model.adapter=melody.safetensors", "--model.further_adapters=[timbre.safetensors]"]
    arguments = ["--data.manifest=m.csv", *adapters, f"--data.audio_prompts={json.dumps(prompts)}"]
    predict(*arguments)
    editor = AudioEditor.from_pretrained(**tiny_parts(WINDOW), adapter=["melody.safetensors", "timbre.safetensors"])
    knobs = {"prompt": "one, solo", "num_inference_steps": 1, "progress": False}
    result = editor.edit("a.wav", audio_prompts=prompts, **knobs)
    result.save("alone.wav")
    assert Path("alone.wav").read_bytes() == Path("edits/one.wav").read_bytes() != b""
    one, two = records()
    assert one["audio_prompts"][0] == {"audio": None} and one["audio_prompts"][1].items() >= prompts[1].items()
    assert one["adapter_digest"].count(",") == 1 and two["audio_prompts"][0]["audio"] == "a.wav"

    capsys.readouterr()
    Path("c.wav").rename("moved.wav")
    arguments[-1] = arguments[-1].replace("c.wav", "moved.wav")
    predict(*arguments)
    assert "skipped  2" in capsys.readouterr().out
    tone(Path("moved.wav"), 3.0, 300, 22_050)
    predict(*arguments)
    assert "made     1" in capsys.readouterr().out and records()[-1]["id"] == "one"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.audio_prompts=[{adapter: timbre}]"], "--data.audio_prompts[0].adapter: 'timbre' is not loaded"),
        (
            ["--data.audio_prompts=[{time_pooling: 64}]"],
            "--data.audio_prompts[0].time_pooling: 64; choose one of 1, 2, 4",
        ),
        (["--data.audio_prompts=[{audio: gone.wav}]"], "--data.audio_prompts[0].audio: gone.wav: no such audio file"),
        (["--data.audio_prompts=[{alpha: 1}]"], "--data.audio_prompts[0].alpha: is unknown; choose from audio"),
        (["--data.audio_prompts=[]"], "--data.audio_prompts: []; give a list"),
        (["--model.further_adapters=[gone.safetensors]"], "gone.safetensors"),
    ],
)
def test_bad_audio_prompts_of_the_command(here, predict, capsys, arguments, expected):
    assert expected in refusal(predict, capsys, "--data.folder=.", "--data.prompt=x", *arguments)
    assert not Path("edits").exists() or not audio_bytes()


def test_a_prompt_that_breaks_in_the_middle_fails_its_edits_alone(here, predict, capsys):
    samples = np.random.default_rng(0).normal(0, 0.1, 8 * 16_000)
    samples[100_000] = np.nan
    soundfile.write("nan.wav", samples, 16_000, subtype="FLOAT")
    write_manifest([("one", "a.wav"), ("bad", "a.wav")], audio_prompts=["", '[{"audio": "nan.wav"}]'])
    error = refusal(predict, capsys, "--data.manifest=m.csv")
    assert "1 of 2 edits failed" in error and "bad: audio_prompts[0].audio: nan.wav: contains NaN" in error
    assert audio_bytes().keys() == {"one.wav"}


# --- processes that die, or work side by side -------------------------------------------------------------------------


def start(model: list[str], *arguments: str, rank: int | None = None):
    """`predict` in a process of its own; with `rank`, as one of two under DDP."""
    process = FORK.Process(target=_quiet_main, args=(command(model, *arguments), rank))
    process.start()
    return process


def _quiet_main(arguments: list[str], rank: int | None) -> None:
    with open("out.txt", "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if rank is not None:  # as torchrun and clusters do; Lightning's own launcher would import everything anew
        port = 20_000 + os.getppid() % 20_000
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    main(arguments)


def wait_until(condition: Callable[[], bool], process) -> None:
    end = time.monotonic() + 60
    while not condition() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.001)


def test_terminated_run_stops_after_its_batch(here, model, predict, capsys):
    process = start(model)
    wait_until(lambda: any(Path("edits/.claims").glob("*.json")), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    done = len(records())
    assert 1 <= done < 5
    predict()
    assert f"skipped  {done}" in capsys.readouterr().out


def test_two_runs_share_one_folder(here, model, undisturbed):
    processes = [start(model, *IN_PAIRS) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert audio_bytes() == undisturbed
    assert sorted(record["id"] for record in records()) == sorted(edit for edit, _ in EDITS)


def test_parts_make_together_what_one_run_makes(here, predict, undisturbed, capsys, monkeypatch):
    """As the tasks of a job array: in any order, one of them twice, and one that is missing at first."""
    predict(*IN_PAIRS, "--part=3/3")
    out = capsys.readouterr().out
    assert "Parts that are not finished yet: 1/3, 2/3. If no task is making them: " in out and "--part 1/3" in out
    made = {record["id"] for record in records()}
    assert 0 < len(made) < len(EDITS)
    for name, value in {"ID": 10, "MIN": 10, "MAX": 14, "COUNT": 3, "STEP": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    monkeypatch.setattr("sys.argv", ["apa_lightning", "predict", "--data.prompt=a b", "--data.part", "slurm"])
    predict(*IN_PAIRS, "--data.part=slurm")
    command = "python -m apa_lightning predict '--data.prompt=a b' --data.part 2/3"
    assert f"Parts that are not finished yet: 2/3. If no task is making them: {command}\n" in capsys.readouterr().out
    assert made < {record["id"] for record in records()} < {edit for edit, _ in EDITS}
    predict(*IN_PAIRS, "--part=3/3")
    predict(*IN_PAIRS, "--part=2/3")
    assert "not finished" not in capsys.readouterr().out.split("predict: summary")[-1]
    assert audio_bytes() == undisturbed and len(records()) == len(EDITS)
    with open("edits/results.csv", encoding="utf-8-sig", newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {edit for edit, _ in EDITS}


def test_two_ranks_make_each_edit_once(here, model, undisturbed):
    """Three batches for two ranks; then one for two, where a fixed share would leave a rank without any."""

    def run_two_ranks() -> None:
        ranks = [
            start(model, *IN_PAIRS, "--trainer.strategy=ddp", "--trainer.devices=2", rank=rank) for rank in range(2)
        ]
        for process in ranks:
            process.join()
            assert process.exitcode == 0

    run_two_ranks()
    assert audio_bytes() == undisturbed
    assert sorted(record["id"] for record in records()) == sorted(edit for edit, _ in EDITS)
    Path("edits/organ.wav").unlink()
    run_two_ranks()
    assert audio_bytes() == undisturbed
    assert len(records()) == len(EDITS) + 1


def test_real_recordings(here, predict, eval_audio):
    predict(f"--data.folder={eval_audio[0].parent}", "--data.prompt=a recording of a violin solo")
    for path in eval_audio:
        source, result = soundfile.info(path), soundfile.info(f"edits/{path.stem}.wav")
        assert (result.samplerate, result.frames) == (source.samplerate, source.frames)
