"""`predict` on bad input: what is refused before any edit, and what fails alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from edit_tools import EDITS, audio_bytes, command, records, refusal, write_manifest
from recordings import tone

from apa_lightning import AudioEditor
from apa_lightning.cli.main import main


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
