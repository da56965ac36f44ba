"""The JSON of samples: labels and captions as people write them, and what is refused."""

import json
from pathlib import Path

import pytest
from shard_tools import both, keys, plain_tar, sample


@both
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (b"", "bad JSON"),
        (b"{", "bad JSON"),
        (b"[" * 100_000, "bad JSON"),
        (b"\xff\xfe\x00", "bad JSON"),
        (b"[1]", "bad JSON"),
        (b'"Piano"', "bad JSON"),
        (b"null", "bad JSON"),
        (b'{"labels": ["Piano"], "caption": 3}', "bad JSON"),
        (b'{"labels": ["Piano"], "x": "' + b"y" * (1 << 20) + b'"}', None),
        (b"{}", "labels missing"),
        (b'{"labels": []}', "labels missing"),
        (b'{"labels": " "}', "labels missing"),
        (b'{"labels": null, "caption": "a piano"}', "labels missing"),
        (b'{"labels": [null]}', "labels missing"),
        (b'{"labels": "[202, 3]"}', "labels missing"),
        (b'{"labels": ["/m/05r5c"]}', "labels missing"),
        (b'{"labels": "/m/05r5c,/m/04rlf"}', "labels missing"),
        (b'{"labels": ["Piano"], "caption": ["a piano"]}', "bad JSON"),
        (b'{"labels": [3]}', "labels missing"),
        (b'{"labels": [""]}', "labels missing"),
    ],
)
def test_bad_metadata(tmp_path: Path, read, metadata: bytes, reason: str | None) -> None:
    members = [*sample("a"), sample("b")[0], ("b.json", metadata), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"] and [f.key for f in faults] == ["b"]
    assert faults[0].reason == (reason or faults[0].reason)


@both
@pytest.mark.parametrize(
    ("metadata", "labels", "prompt"),
    [
        ({"labels": "Piano"}, ["Piano"], "piano"),
        ({"labels": "Violin, fiddle"}, ["Violin, fiddle"], "violin, fiddle"),
        ({"labels": "Violin, fiddle;Piano"}, ["Violin, fiddle", "Piano"], "violin, fiddle, piano"),
        ({"labels": "Music|Piano"}, ["Music", "Piano"], "music, piano"),
        ({"labels": "Music,Piano"}, ["Music", "Piano"], "music, piano"),
        ({"labels": '["Violin, fiddle", "Piano"]'}, ["Violin, fiddle", "Piano"], "violin, fiddle, piano"),
        ({"labels": "['Violin, fiddle', 'Piano']"}, ["Violin, fiddle", "Piano"], "violin, fiddle, piano"),
        ({"labels": ["Piano", None, "", float("nan")]}, ["Piano"], "piano"),
        ({"labels": ["Piano"], "caption": None}, ["Piano"], "piano"),
        ({"labels": ["Piano"], "caption": float("nan")}, ["Piano"], "piano"),
        ({"labels": ["Piano"], "caption": ""}, ["Piano"], "piano"),
        ({"labels": ["Piano"], "caption": "a sad piano"}, ["Piano"], "a sad piano"),
    ],
)
def test_labels_as_one_text_and_captions_that_are_absent(
    tmp_path: Path, read, metadata: dict, labels: list[str], prompt: str
) -> None:
    audio, _ = sample("a")
    (example,), faults = read(plain_tar(tmp_path / "x.tar", [audio, ("a.json", json.dumps(metadata).encode())]))
    assert example["labels"] == example["metadata"]["labels"] == labels and not faults
    assert prompt in example["prompt"]
    assert ("caption" in example["metadata"]) == (prompt == "a sad piano")
