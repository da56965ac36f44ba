"""Manifests: what they can say, and every bad line reported at once."""

import json
from pathlib import Path

import pytest
from edit_tools import complaint, read
from recordings import tone

from apa_lightning.errors import InputError
from datamodules.edits import EditsDataModule

CELL = '"[{}, {""audio"": ""b.flac"", ""adapter"": ""timbre"", ""start"": 0.5, ""ap_scale"": {""up"": 1}}]"'


def test_csv_says_every_knob(here):
    (edit,) = read(
        "id,audio,output,prompt,negative_prompt,ap_scale,time_pooling,freq_pooling,guidance_scale,num_inference_steps,"
        "scheduler,seed,region_start,region_end,extend_left,extend_right,crossfade,sample_rate,match_level\n"
        'x,b.flac,sub/x.flac,"a ""warm"" violin, solo\non two lines",piano,0.7,4.0,8,3.5,20,'
        "DDPMScheduler,7,0.5,1.5,0,3,0.1,22050,no\n"
    )
    request = edit.request
    assert request.prompt == 'a "warm" violin, solo\non two lines'
    assert (edit.output, edit.where, edit.info.seconds) == ("sub/x.flac", "m.csv:2", 2.0)
    assert (request.id, Path(request.audio), request.negative_prompt, request.ap_scale) == (
        "x",
        Path("b.flac"),
        "piano",
        0.7,
    )
    assert (request.time_pooling, request.freq_pooling, request.guidance_scale, request.num_inference_steps) == (
        4,
        8,
        3.5,
        20,
    )
    assert (request.scheduler, request.seed, request.region, request.sample_rate) == (
        "DDPMScheduler",
        7,
        (0.5, 1.5),
        22050,
    )
    assert (request.extend, request.crossfade, request.match_level) == ((0.0, 3.0), 0.1, False)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_several_regions_are_json_in_a_cell(here, delimiter):
    rows = ["audio,prompt,region,extend", 'b.flac,x,"[[0.1, 0.5], [1, 2]]",', 'b.flac,y,"[0, 1]","[2, 0.5]"']
    text = "\n".join(f"{i if i else 'id'},{row}" for i, row in enumerate(rows))
    if delimiter == ";":
        text = text.replace(",", ";").replace("; ", ", ")
    first, second = read(text, extend=(1, 1), region=(0, 0.5))
    assert (first.request.region, first.request.extend) == ([[0.1, 0.5], [1, 2]], (1, 1))
    assert (second.request.region, second.request.extend) == ([0, 1], [2, 0.5])


def test_jsonl_says_every_knob(here):
    line = {
        "id": 7,
        "audio": str(here / "b.flac"),
        "prompt": "",
        "ap_scale": {"up": 0.5},
        "time_pooling": 1,
        "region": [0, 1],
        "seed": 3,
    }
    (edit,) = read(json.dumps(line), "m.jsonl", time_pooling=8, guidance_scale=2.0)
    request = edit.request
    assert (request.id, edit.output, request.prompt, request.ap_scale, request.region) == (
        "7",
        "7.wav",
        "",
        {"up": 0.5},
        [0, 1],
    )
    assert (request.time_pooling, request.guidance_scale) == (1, 2.0), (
        "the line wins over the setting, the setting over the default"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "audio,prompt\na.wav,flûte\n",
        "audio;prompt;\r\na.wav;flûte;\r\n",
        "prompt\taudio\nflûte\ta.wav",
        "sep=;\r\naudio;prompt\r\na.wav;flûte\r\n\r\n;\r\n",  # Excel
        '"sep=,",\raudio,prompt\ra.wav,flûte\r',  # Excel on a Mac
        ",audio,prompt\n0,a.wav,flûte\n",  # pandas
        "Unnamed: 0.1,Unnamed: 0,audio,prompt,seed\n0,0,a.wav,flûte,\n",  # the same, read and written again
    ],
)
def test_dialects(here, text, encoding):
    (edit,) = read(text.encode(encoding))
    assert (edit.id, edit.request.prompt) == ("a", "flûte")


def test_json_of_a_table_with_gaps(here):
    """A column of pandas with a gap is floating-point, and the gap is null or NaN; each line ends as on its system."""
    text = (
        '{"index": 0, "id": 1.0, "audio": "a.wav", "prompt": "x", "seed": 0.0, "time_pooling": 2.0, "freq_pooling": NaN, '
        '"match_level": 0.0, "region_start": null, "region_end": NaN, "region": null, "output": null}\r\n'
        '{"index": 1, "id": 2.0, "audio": "a.wav", "prompt": null, "seed": null, "time_pooling": null, "match_level": null}\r\n'
    )
    first, second = read(text, "m.jsonl", prompt="harp", seed=7, freq_pooling=8)
    assert (first.id, first.output, second.id) == ("1", "1.wav", "2")
    assert [repr(getattr(first.request, name)) for name in ("seed", "time_pooling", "match_level", "region")] == [
        "0",
        "2",
        "False",
        "None",
    ]
    assert (first.request.freq_pooling, second.request.prompt, second.request.seed) == (8, "harp", 7)


def test_lines_are_counted_behind_excels_own(here):
    assert "m.csv:3: seed" in complaint("sep=;\naudio;prompt;seed\na.wav;x;y\n")


def test_lines_are_counted_as_an_editor_does(here):
    edits = read('audio,prompt,id\n\na.wav,"two\nlines",x\n,,\na.wav,,y\n')
    assert [(edit.where, edit.request.prompt) for edit in edits] == [("m.csv:3", "two\nlines"), ("m.csv:6", "")]


def test_empty_cell_is_the_setting(here):
    edits = read("audio,id,prompt,seed\na.wav,x,,\na.wav,y,flute,5\n", prompt="harp", seed=3)
    assert [(edit.request.prompt, edit.request.seed) for edit in edits] == [("harp", 3), ("flute", 5)]


def test_audio_is_relative_to_the_manifest(here):
    tone(here / "deep" / "c.wav")
    (edit,) = read("audio,prompt\nc.wav,flute\n", "deep/m.csv")
    assert edit.request.audio == "deep/c.wav"


def test_folder(here):
    clips = here / "clips"
    for name in ("a.wav", "a.flac", "B.WAV", "sub/c.ogg", ".hidden.wav", "edits/old.wav"):
        tone(clips / name)
    (clips / "notes.txt").write_text("no audio")
    flat = EditsDataModule(folder="clips", prompt="flute", output="clips/edits").read_edits()
    deep = EditsDataModule(folder="clips", prompt="flute", output="clips/edits", recursive=True).read_edits()
    assert [edit.output for edit in flat] == ["B.wav", "a_flac.wav", "a_wav.wav"]
    assert [edit.output for edit in deep] == ["B.wav", "a_flac.wav", "a_wav.wav", "sub/c.wav"]


def test_a_folder_without_recordings_says_what_is_in_it(here):
    (here / "phone").mkdir()
    (here / "phone" / "a.m4a").touch()
    tone(here / "phone" / "old" / "b.aiff")
    with pytest.raises(
        InputError, match=r"phone holds no recordings \(1 \.m4a not read: convert.*subfolders hold 1: `rec"
    ):
        EditsDataModule(folder="phone", prompt="flute")


def test_audio_prompts_are_json_in_both_formats(here):
    """Their files start at the manifest's folder; those of the command where the command runs."""
    entries = [{}, {"audio": "b.flac", "adapter": "timbre", "start": 0.5, "ap_scale": {"up": 1}}]
    (here / "sub").mkdir()
    for name in ("a.wav", "b.flac"):
        (here / "sub" / name).symlink_to(here / name)
    line = json.dumps({"audio": "a.wav", "prompt": "x", "audio_prompts": entries})
    for text, name in ((f"audio,prompt,audio_prompts\na.wav,x,{CELL}\n", "sub/m.csv"), (line, "sub/m.jsonl")):
        (edit,) = read(text, name)
        assert edit.request.audio_prompts == [{}, entries[1] | {"audio": "sub/b.flac"}]
        assert edit.sources == [Path("sub/a.wav"), Path("sub/b.flac")]
    of_command, own, none = read(
        f"id,audio,prompt,audio_prompts\n1,a.wav,x,\n2,a.wav,x,{CELL}\n3,a.wav,x,[{{}}]\n",
        "sub/m.csv",
        audio_prompts=[{"audio": "b.flac"}],
    )
    assert [edit.sources[1:] for edit in (of_command, own, none)] == [[Path("b.flac")], [Path("sub/b.flac")], []]
