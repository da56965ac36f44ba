"""Every mistake of a manifest is reported at once, with its line and the way out."""

import numpy as np
import pytest
import soundfile
from edit_tools import complaint, read
from recordings import RATE

from apa_lightning.errors import InputError
from datamodules.edits import EditsDataModule

CSV_MISTAKES = {  # header, line -> where and what
    "unknown column": ("audio,promt,prompt", "a.wav,x,y", "m.csv:1: unknown column 'promt'; did you mean 'prompt'?"),
    "missing audio column": ("file,prompt", "a.wav,x", "m.csv:1: column 'audio' is missing"),
    "missing prompt column": ("audio,seed", "a.wav,1", "m.csv:1: column 'prompt' is missing (`prompt` of the command"),
    "no header": ("a.wav,make it jazz", "b.flac,x", "m.csv:1: column 'audio' is missing"),
    "doubled column": ("audio,prompt,prompt", "a.wav,x,y", "m.csv:1: column 'prompt' appears twice"),
    "unquoted comma": ("audio,prompt", "a.wav,warm, violin", "m.csv:2: has 3 cells"),
    "open quote": ("audio,prompt", 'a.wav,"violin', "m.csv:2: broken CSV"),
    "no audio": ("audio,prompt", ",violin", "m.csv:2: audio: is missing"),
    "missing file": ("audio,prompt", "gone.wav,x", "m.csv:2: audio: gone.wav: no such audio file"),
    "folder as audio": ("audio,prompt", ".,x", "is a folder"),
    "not audio": ("audio,prompt", "page.wav,x", "page.wav: not a readable audio file"),
    "truncated": ("audio,prompt", "cut.wav,x", "cut.wav: truncated"),
    "silent": ("audio,prompt", "silent.wav,x", "silent.wav: is digital silence"),
    "too short": ("audio,prompt", "short.wav,x", "short.wav: lasts 0.050 s"),
    "rate -3": ("audio,prompt,time_pooling", "a.wav,x,-3", "m.csv:2: time_pooling: -3; choose one of 1, 2, 4, 8"),
    "rate 0": ("audio,prompt,freq_pooling", "a.wav,x,0", "m.csv:2: freq_pooling: 0; choose one of 1, 2, 4, 8"),
    "rate 1.5": ("audio,prompt,time_pooling", "a.wav,x,1.5", "m.csv:2: time_pooling: '1.5' is not a whole number"),
    "word": ("audio,prompt,seed", "a.wav,x,many", "m.csv:2: seed: 'many' is not a number"),
    "decimal comma": (
        "audio,prompt,ap_scale",
        'a.wav,x,"0,5"',
        "m.csv:2: ap_scale: '0,5' is not a number (the decimal sign is a point",
    ),
    "alpha NaN": ("audio,prompt,ap_scale", "a.wav,x,nan", "m.csv:2: ap_scale: nan; give a finite number"),
    "alpha text": ("audio,prompt,ap_scale", "a.wav,x,{up", "m.csv:2: ap_scale: '{up' is not JSON"),
    "negative lambda": ("audio,prompt,guidance_scale", "a.wav,x,-1", "m.csv:2: guidance_scale: -1.0"),
    "0 steps": ("audio,prompt,num_inference_steps", "a.wav,x,0", "m.csv:2: num_inference_steps: 0; give 1 to 1000"),
    "huge rate": ("audio,prompt,sample_rate", "a.wav,x,1000000", "m.csv:2: sample_rate: 1000000"),
    "level": ("audio,prompt,match_level", "a.wav,x,loud", "m.csv:2: match_level: 'loud' is neither true nor false"),
    "end first": (
        "audio,prompt,region_start,region_end",
        "b.flac,x,1.5,1",
        "m.csv:2: region: (1.5, 1.0); give start and end in seconds, the end after the start",
    ),
    "half a region": ("audio,prompt,region_start,region_end", "b.flac,x,1.5,", "m.csv:2: region_end: is missing"),
    "outside": (
        "audio,prompt,region_start,region_end",
        "b.flac,x,1.5,4",
        "m.csv:2: region: 1.5 to 4 s lies outside b.flac",
    ),
    "second outside": (
        "audio,prompt,region",
        'b.flac,x,"[[0, 1], [1.5, 4]]"',
        "m.csv:2: region: 1.5 to 4 s lies outside b.flac",
    ),
    "regions in words": ("audio,prompt,region", "b.flac,x,1-2", "m.csv:2: region: '1-2' is not a number"),
    "half of JSON": ("audio,prompt,region", 'b.flac,x,"[[0, 1]"', "m.csv:2: region: '[[0, 1]' is not JSON"),
    "half an extension": ("audio,prompt,extend_right", "b.flac,x,1", "m.csv:2: extend_left: is missing"),
    "backwards": ("audio,prompt,extend", 'b.flac,x,"[-1, 0]"', "m.csv:2: extend: [-1, 0]; give the seconds before"),
    "too long": ("audio,prompt,extend", 'b.flac,x,"[0, 1799]"', "m.csv:2: extend: b.flac would last 1801 s"),
    "fade": (
        "audio,prompt,region,crossfade",
        'b.flac,x,"[0, 1]",0.6',
        "m.csv:2: crossfade: 0.6 s at both ends of the region from 0 to 1 s leave nothing of it",
    ),
    "leaves": ("audio,prompt,output", "a.wav,x,../x.wav", "m.csv:2: output: '../x.wav' leaves the output folder edits"),
    "absolute": ("audio,prompt,output", "a.wav,x,/tmp/x.wav", "leaves the output folder"),
    "id leaves": ("audio,prompt,id", "a.wav,x,../../x", "m.csv:2: id: '../../x' leaves the output folder"),
    "hidden": ("audio,prompt,id", "a.wav,x,.x", "m.csv:2: id: '.x' is a hidden file"),
    "long": ("audio,prompt,id", "a.wav,x," + "x" * 300, "is longer than 200 bytes"),
    "format": (
        "audio,prompt,output",
        "a.wav,x,x.mp4",
        "m.csv:2: output: 'x.mp4' is not an audio file name. Let it end in .wav or .flac",
    ),
    "doubled id": ("audio,prompt,id", "a.wav,x,i\na.wav,y,i", "m.csv:3: id: 'i' is already that of m.csv:2"),
    "same stem": ("audio,prompt", "a.wav,x\na.wav,y", "m.csv:3: id: 'a' is already that of m.csv:2"),
    "doubled output": (
        "audio,prompt,id,output",
        "a.wav,x,i,o.wav\na.wav,y,j,o.wav",
        "m.csv:3: output: 'o.wav' is already that of m.csv:2",
    ),
}


@pytest.mark.parametrize(("header", "lines", "expected"), CSV_MISTAKES.values(), ids=CSV_MISTAKES)
def test_csv_mistakes(here, header, lines, expected):
    assert expected in complaint(f"{header}\n{lines}\n")


JSONL_MISTAKES = {
    "bad JSON": ('{"audio": "a.wav", "prompt": }', "m.jsonl:1: bad JSON (Expecting value at character 30)"),
    "list": ('["a.wav", "x"]', "m.jsonl:1: is not a JSON object"),
    "deep": ("[" * 200_000, "m.jsonl:1: bad JSON"),
    "long number": ('{"audio": "a.wav", "prompt": "x", "seed": ' + "9" * 5000 + "}", "m.jsonl:1: bad JSON"),
    "doubled key": (
        '{"audio": "a.wav", "prompt": "x", "prompt": "y"}',
        "m.jsonl:1: bad JSON ('prompt' appears twice)",
    ),
    "unknown": ('{"audio": "a.wav", "prompt": "x", "alpha": 1}', "m.jsonl:1: unknown column 'alpha'"),
    "no audio": ('{"prompt": "x"}', "m.jsonl:1: 'audio' is missing"),
    "no prompt": ('{"audio": "a.wav"}', "m.jsonl:1: 'prompt' is missing (`prompt` of the command"),
    "null prompt": ('{"audio": "a.wav", "prompt": null}', "m.jsonl:1: 'prompt' is missing (`prompt` of the command"),
    "number as prompt": ('{"audio": "a.wav", "prompt": 5}', "m.jsonl:1: prompt: 5; give a string"),
    "null audio": ('{"audio": null, "prompt": "x"}', "m.jsonl:1: 'audio' is missing"),
    "half a character": (
        '{"audio": "a.wav", "prompt": "\\ud800x"}',
        r"prompt: '\ud800x'; give a string of whole characters",
    ),
    "half a name": ('{"audio": "a.wav", "prompt": "x", "id": "\\ud800"}', r"m.jsonl:1: id: '\ud800"),
    "infinite": (
        '{"audio": "a.wav", "prompt": "x", "ap_scale": Infinity}',
        "m.jsonl:1: ap_scale: inf; give a finite number",
    ),
    "half a seed": ('{"audio": "a.wav", "prompt": "x", "seed": 0.5}', "m.jsonl:1: seed: 0.5; give a whole number"),
    "list as audio": ('{"audio": ["a.wav"], "prompt": "x"}', "is not a file name"),
    "list as rate": (
        '{"audio": "a.wav", "prompt": "x", "time_pooling": [2]}',
        "m.jsonl:1: time_pooling: [2]; choose one of 1, 2, 4, 8",
    ),
    "object as seed": ('{"audio": "a.wav", "prompt": "x", "seed": {}}', "m.jsonl:1: seed: {}; give a whole number"),
    "number as scheduler": (
        '{"audio": "a.wav", "prompt": "x", "scheduler": 3}',
        "m.jsonl:1: scheduler: 3; give the name of a diffusers scheduler",
    ),
    "word as level": (
        '{"audio": "a.wav", "prompt": "x", "match_level": "no"}',
        "match_level: 'no'; give true or false",
    ),
    "region of one": ('{"audio": "a.wav", "prompt": "x", "region": [1]}', "m.jsonl:1: region: [1]"),
    "region as text": ('{"audio": "a.wav", "prompt": "x", "region": "0-1"}', "m.jsonl:1: region: '0-1'"),
    "region as number": ('{"audio": "a.wav", "prompt": "x", "region": 3}', "m.jsonl:1: region: 3"),
    "two regions": (
        '{"audio": "a.wav", "prompt": "x", "region": [0, 1], "region_start": 0, "region_end": 1}',
        "Choose one",
    ),
    "list as id": ('{"audio": "a.wav", "prompt": "x", "id": [1]}', "m.jsonl:1: id: [1] is not a name"),
    "number as output": ('{"audio": "a.wav", "prompt": "x", "output": 5}', "m.jsonl:1: output: 5 is not a file name"),
    "control character": (
        '{"audio": "a.wav", "prompt": "x", "id": "a\\nb"}',
        "m.jsonl:1: id: 'a\\nb.wav' is not a file name",
    ),
}


@pytest.mark.parametrize(("line", "expected"), JSONL_MISTAKES.values(), ids=JSONL_MISTAKES)
def test_jsonl_mistakes(here, line, expected):
    assert expected in complaint(line, "m.jsonl")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("", "m.csv", "m.csv holds no edit"),
        ("audio,prompt\n\n", "m.csv", "m.csv holds no edit"),
        ("\n\n", "m.jsonl", "m.jsonl holds no edit"),
        ("x", "m.yaml", "neither .csv nor .jsonl"),
        ("audio,prompt\na.wav,flûte\n".encode("latin-1"), "m.csv", "m.csv:2 is not UTF-8"),
        ("audio,prompt\na.wav,x\n".encode("utf-16-le"), "m.csv", "m.csv:1 contains zero bytes"),
        ("audio,,prompt\na.wav,5,x\n", "m.csv", "m.csv:1: unknown column ''"),
        (b"audio,prompt\na.wav,\0x\n", "m.csv", "m.csv:2 contains zero bytes"),
    ],
)
def test_whole_file_mistakes(here, text, name, expected):
    assert expected in complaint(text, name)


def test_every_mistake_is_reported_at_once(here):
    lines = [
        "audio,prompt,id,seed,time_pooling,output",
        "a.wav,x,1,one,0,",
        "gone.wav,x,2,1,0,../y.wav",
        "a.wav,x,3,1,2,",
        "silent.wav,x,4,,,",
        "a.wav,x,1,x,,",
    ]
    message = complaint("\n".join(lines))
    assert message.startswith("manifest: m.csv: 8 problems; nothing was edited.\n")
    expected = [
        "m.csv:2: seed",
        "m.csv:2: time_pooling",
        "m.csv:3: time_pooling",
        "m.csv:3: output",
        "m.csv:3: audio: gone.wav",
        "m.csv:5: audio: silent.wav",
        "m.csv:6: seed",
        "m.csv:6: id",
    ]
    assert all(f"\n  {mistake}" in message for mistake in expected)


def test_thousands_of_mistakes_stay_readable(here):
    message = complaint("audio,prompt,id\n" + "".join(f"gone.wav,x,{i}\n" for i in range(3_000)))
    assert "3000 problems" in message
    assert message.endswith("and 2900 more")


@pytest.mark.parametrize("name", ["a.wav", "./a.wav", "sub/../a.wav"])
def test_output_never_overwrites_a_recording(here, name):
    (here / "sub").mkdir()
    message = complaint(f"audio,prompt,id\n{name},x,a\nb.flac,y,b\n", output=".")
    assert "m.csv:2: output: a.wav would overwrite the recording" in message
    (here / "edits").symlink_to(here)
    with pytest.raises(InputError, match="would overwrite the recording"):
        read("audio,prompt,id\nb.flac,x,a\na.wav,y,c\n")


def test_output_through_a_link_does_not_leave(here):
    (here / "edits").mkdir()
    (here / "edits" / "out").symlink_to("/tmp")
    with pytest.raises(InputError, match="leaves the output folder"):
        read("audio,prompt,id\na.wav,x,out/a\n")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "Nothing to edit: give `manifest` FILE, or `folder` FOLDER"),
        ({"manifest": "m.csv", "folder": "."}, "Can't provide both `manifest` and `folder`"),
        ({"folder": "."}, "prompt: is missing"),
        ({"folder": "empty", "prompt": "x"}, "holds no recordings (files that end in .flac, .wav, .ogg"),
        ({"folder": ".", "prompt": "x"}, "4 problems"),
        ({"folder": ".", "prompt": "x", "time_pooling": 0}, "time_pooling: 0; choose one of 1, 2, 4, 8"),
        ({"folder": ".", "prompt": "x", "batch_size": 0}, "batch_size: 0"),
        ({"folder": ".", "prompt": "x", "region": (2.0, 1.0)}, "region: (2.0, 1.0); give start and end"),
    ],
)
def test_setting_mistakes(here, settings, expected):
    (here / "empty").mkdir()
    with pytest.raises(InputError) as error:
        EditsDataModule(**settings).read_edits()
    assert expected in str(error.value)


@pytest.mark.parametrize("settings", [{"manifest": "gone.csv"}, {"folder": "gone", "prompt": "x"}])
def test_missing_source(here, settings):
    with pytest.raises(FileNotFoundError, match="gone"):
        EditsDataModule(**settings).read_edits()


def test_every_mistake_in_audio_prompts_is_reported_at_once(here):
    cells = [
        "b.flac", '[{"audio": "gone.wav"}]', '[{"audio": "silent.wav"}]', '[{"audio": "b.flac", "end": 2.5}]', '[{"end": 1.5}]',
        "[]", '[{"apscale": 1}]', '[{}, {"time_pooling": 0}]', '[{"audio": "a.wav", "audio": "b.flac"}]', '{"audio": "b.flac"}',
    ]  # fmt: skip
    rows = [f'{i},a.wav,x,"{cell.replace(chr(34), chr(34) * 2)}"' for i, cell in enumerate(cells)]
    message = complaint("id,audio,prompt,audio_prompts\n" + "\n".join(rows))
    assert message.startswith("manifest: m.csv: 10 problems; nothing was edited.\n")
    for line, expected in enumerate(
        [
            "audio_prompts: 'b.flac' is not JSON; write for example [{",
            "audio_prompts[0].audio: gone.wav: no such audio file",
            "audio_prompts[0].audio: silent.wav: is digital silence",
            "audio_prompts[0].end: 0 to 2.5 s lies outside b.flac, which lasts 2.00 s",
            "audio_prompts[0].end: 0 to 1.5 s lies outside a.wav, which lasts 1.00 s",
            "audio_prompts: []; give a list of one or more entries",
            "audio_prompts[0].apscale: is unknown; choose from audio, adapter",
            "audio_prompts[1].time_pooling: 0; choose one of 1, 2, 4, 8",
            "audio_prompts: ",  # a key twice
            "audio_prompts: {'audio': 'b.flac'}; give a list",
        ],
        start=2,
    ):
        assert f"m.csv:{line}: {expected}" in message


def test_a_mistake_in_the_commands_audio_prompts_is_reported_once(here):
    rows = "audio,prompt,id\n" + "".join(f"a.wav,x,{i}\n" for i in range(3))
    message = complaint(rows, audio_prompts=[{"audio": "gone.wav"}])
    assert message.splitlines()[1:] == ["  audio_prompts[0].audio: gone.wav: no such audio file."]


def test_results_do_not_overwrite_an_audio_prompt(here):
    with pytest.raises(InputError, match=r"output: b.wav would overwrite the recording"):
        soundfile.write("b.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
        read("audio,prompt,id\na.wav,x,b\n", output=".", audio_prompts=[{"audio": "b.wav"}])
