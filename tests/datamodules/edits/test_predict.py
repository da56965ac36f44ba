"""`predict` through the command line: files, records, and what is made again."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from edit_tools import EDITS, IN_PAIRS, WINDOW, audio_bytes, records, refusal, write_manifest
from random_folders import tiny_parts
from recordings import tone

from apa_lightning import AudioEditor


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


def test_real_recordings(here, predict, eval_audio):
    predict(f"--data.folder={eval_audio[0].parent}", "--data.prompt=a recording of a violin solo")
    for path in eval_audio:
        source, result = soundfile.info(path), soundfile.info(f"edits/{path.stem}.wav")
        assert (result.samplerate, result.frames) == (source.samplerate, source.frames)
