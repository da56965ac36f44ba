"""BAD_INPUTS through the command line, one table: how each ends, with which words, and what is left on the disk."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from bad_inputs_tools import (
    GOOD,
    ROOT,
    End,
    Room,
    delivered,
    main,
    noise,
    pickled,
    quarantined,
    run,
    three_hours,
    torch_bytes,
)
from fit_tools import WINDOW
from random_folders import tiny_backbone
from shard_tools import encode, flip, sample, special, tone, write_shards
from test_audio import BROKEN

from apa_lightning.backbones.architectures import TINY, save_random_backbone
from datamodules.shards.index import index_path, read_index


@dataclass(frozen=True)
class Case:
    """One bad input and one command that meets it.

    `refused`: exit code 2 and one message with the words; no file is new or changed but those in `leaves`.
    `skipped`: exit code 0; the report names the culprits, a warning says the words, and all other clips were delivered.
    `works`: exit code 0, and the words are said.
    """

    number: int
    name: str
    outcome: Literal["refused", "skipped", "works"]
    words: tuple[str, ...]
    prepare: Callable[[Room], list[object]]
    culprits: tuple[str, ...] = ("culprit",)
    leaves: tuple[str, ...] = ()
    check: Callable[[Room], object] = lambda room: None
    ranks: int = 1
    members: Callable[[Room], list] | None = None
    """Of a shard: all cases that have some stand in one shard and share one run, to save time."""

    def __str__(self) -> str:
        return f"{self.number}-{self.name}"


def refused(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "refused", tuple(words.split("|")), prepare, **more)


def skipped(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "skipped", tuple(words.split("|")), prepare, **more)


def works(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "works", tuple(filter(None, words.split("|"))), prepare, **more)


def in_shard(number: int, name: str, words: str, members: Callable[[Room], list], culprits: tuple[str, ...]) -> Case:
    return skipped(number, f"{name}-fit", words, all_in_one_shard, culprits=culprits, members=members)


def all_in_one_shard(room: Room) -> list[object]:
    groups = [case.members(room) for case in CASES if case.members]
    room.keys |= {key for case in CASES if case.members for key in case.culprits}
    members = [member for group in groups for member in group]
    share = ["--data.max_broken_share", 0.9, "--data.batch_size", GOOD + len(groups)]
    return room.fit(*share, shard=room.shard(*members))


# --- 1 to 10: audio ---------------------------------------------------------------------------------------------------

AUDIO = {  # what the message says; a library may say "not a readable" where our own check would come next
    "empty": (1, "empty"),
    "random": (1, "not a readable audio file"),
    "html": (1, "not a readable audio file"),
    "short_wav": (2, "truncated"),
    "cut_flac": (3, ""),
    "huge_flac": (4, "can hold"),
    "nan": (5, "NaN"),
    "inf": (5, "infinite"),
    "no_frames": (6, ""),
    "no_channels": (6, ""),
    "rate_0": (6, ""),
    "64_channels": (7, "64 channels"),
    "4_GHz": (7, ""),
    "silence": (8, "digital silence"),
    "too_short": (9, "0.050 s"),
    "three_hours": (9, "10800 s; the limit for one edit is 1800 s"),
}


def audio(name: str, room: Room) -> tuple[bytes, str]:
    """The bytes of a bad clip, and its suffix."""
    if name == "three_hours":
        return three_hours(), "flac"
    if name == "silence":
        return encode(np.zeros(24_000), kind="wav"), "wav"
    if name == "too_short":
        return encode(tone(0.05), kind="wav"), "wav"
    scratch = room.path / "scratch"
    scratch.mkdir(exist_ok=True)
    return BROKEN[name][0](scratch), "flac" if "flac" in name else "wav"


def edited(name: str, words: str) -> Case:
    return refused(
        AUDIO[name][0],
        f"{name}-predict",
        f"culprit|{words}",
        lambda r: r.folder("--data.folder", r.culprit(*audio(name, r))),
    )


def clip(key: str, content: bytes, suffix: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.{suffix}", content), (f"{key}.json", b'{"labels": ["Piano"]}')]


def late_cut(room: Room) -> list[object]:
    whole = noise(12)
    return room.folder("--data.folder", room.culprit(whole[: len(whole) * 3 // 4], "flac"))


FORMATS = {  # file: sample rate, channels, how it is written
    "u8.wav": (8_000, 1, {"subtype": "PCM_U8"}),
    "s16.wav": (44_100, 2, {"subtype": "PCM_16"}),
    "s32.wav": (48_000, 1, {"subtype": "PCM_32"}),
    "float.wav": (11_025, 2, {"subtype": "FLOAT"}),
    "s24.flac": (96_000, 2, {"subtype": "PCM_24"}),
    "vorbis.ogg": (22_050, 1, {}),
    "layer3.mp3": (44_100, 2, {}),
}


def formats_edited(room: Room) -> list[object]:
    for name, (rate, channels, form) in FORMATS.items():
        room.recording(f"in/{name}", 0.5, rate, channels=channels, **form)
    return room.folder()


def formats_are_kept(room: Room) -> None:
    for name, (rate, _, _) in FORMATS.items():
        assert soundfile.info((room.path / "edits" / name).with_suffix(".wav")).samplerate == rate


def formats_trained(room: Room) -> list[object]:
    members = []
    for name, (rate, channels, form) in FORMATS.items():
        key, kind = name.split(".")
        room.keys.add(key)
        members += [(name, encode(tone(1.2, rate, channels=channels), rate, kind, **form))]
        members += [(f"{key}.json", b'{"labels": ["Piano"]}')]
    return room.fit(shard=room.shard(*members, good=8))


def all_delivered(room: Room) -> None:
    assert delivered(room) == room.keys
    assert not [line for line in quarantined(room) if not line["kept"]]


def silence_is_remarked(room: Room) -> None:
    all_delivered(room)
    assert [line["key"] for line in quarantined(room)] == ["culprit"]


RECORDINGS = [
    *(edited(name, words) for name, (_, words) in AUDIO.items()),
    *(
        in_shard(number, name, words, lambda r, name=name: clip(name, *audio(name, r)), (name,))
        for name, (number, words) in AUDIO.items()
        if name not in ("silence", "three_hours")
    ),
    skipped(1, "html-validate", "not a readable", lambda r: r.validate(shard=r.clip(*audio("html", r)))),
    refused(3, "cut_behind_the_first_seconds-predict", "culprit|1 of 2 edits failed", late_cut,
            leaves=("edits/good.wav", "edits/results.jsonl", "edits/results.csv")),
    works(8, "silence-fit", "digital silence|culprit", lambda r: r.fit(shard=r.clip(*audio("silence", r))),
          check=silence_is_remarked),
    works(9, "three_hours-fit", "", lambda r: r.fit(shard=r.clip(*audio("three_hours", r))), check=all_delivered),
    works(10, "formats-predict", f"made     {len(FORMATS)}", formats_edited, check=formats_are_kept),
    works(10, "formats-fit", "", formats_trained, check=all_delivered),
]  # fmt: skip


# --- 11 to 17: shards -------------------------------------------------------------------------------------------------


def indexed(room: Room, damage: Callable[[Path], object] = lambda path: None, samples: int = GOOD) -> Path:
    """A shard with an index, damaged after it was written."""
    (path,) = write_shards(room.path / "shards", samples, samples)
    room.keys |= {member.key for member in read_index(path).members}
    damage(path)
    return path


def without_index(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(path: Path) -> None:
        damage(path)
        index_path(path).unlink()

    return both


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 6 // 10)


def member_of(path: Path, key: str):
    with tarfile.open(path) as tar:
        return tar.getmember(f"{key}.flac")


def header_byte(path: Path) -> None:
    flip(path, member_of(path, "train005").offset + 3)


def member_byte(path: Path) -> None:
    flip(path, member_of(path, "train005").offset_data + 4_000)


def nothing_is_lost(room: Room) -> None:
    """Delivered + quarantined = written."""
    named = {line["key"] for line in quarantined(room)}
    assert delivered(room) | named == room.keys
    assert not delivered(room) & named


def the_loss_is_said(room: Room) -> None:
    """Without an index nobody knows the lost keys: the stretch is named, and no key is delivered that was not written."""
    assert delivered(room) < room.keys
    assert any(line["reason"] == "lost in a damaged tar" and "bytes" in line["detail"] for line in quarantined(room))


FLAC = encode(tone())
JSON = b'{"labels": ["Piano"]}'
MEMBERS = {  # what is said, and the members of a key
    "no_audio": (13, "sample without audio", lambda k: [(f"{k}.json", JSON)]),
    "no_json": (13, "sample without JSON", lambda k: [(f"{k}.flac", FLAC)]),
    "bad_json": (13, "bad JSON", lambda k: [(f"{k}.flac", FLAC), (f"{k}.json", b"{")]),
    "json_list": (13, "bad JSON|an object is needed", lambda k: [(f"{k}.flac", FLAC), (f"{k}.json", b"[]")]),
    "no_labels": (13, "labels missing", lambda k: [(f"{k}.flac", FLAC), (f"{k}.json", b"{}")]),
    "empty_labels": (13, "labels missing", lambda k: [(f"{k}.flac", FLAC), (f"{k}.json", b'{"labels": []}')]),
    "symlink": (15, "link or device", lambda k: [special(f"{k}.flac", tarfile.SYMTYPE), (f"{k}.json", JSON)]),
    "hard_link": (15, "link or device", lambda k: [special(f"{k}.flac", tarfile.LNKTYPE), (f"{k}.json", JSON)]),
    "device": (15, "link or device", lambda k: [special(f"{k}.flac", tarfile.CHRTYPE), (f"{k}.json", JSON)]),
}


def interleaved(room: Room) -> list:
    return [("one.flac", FLAC), ("other.flac", FLAC), ("one.json", JSON), ("other.json", JSON)]


def duplicate(room: Room) -> list[object]:
    """The first of the two is delivered."""
    room.keys.add("culprit")
    between = sample("between", 3)
    room.keys.add("between")
    return room.fit(shard=room.shard(*sample("culprit", 1), *between, *sample("culprit", 2)))


def first_is_delivered(room: Room) -> None:
    assert "culprit" in delivered(room)


def executable(suffix: str) -> Callable[[Room], list]:
    def members(room: Room) -> list:
        content = pickled(room.payload())
        if suffix == "pth":
            content = torch_bytes(room.payload(), room.path / "payload")
        return [*sample(f"payload_{suffix}"), (f"payload_{suffix}.{suffix}", content)]

    return members


def pipe(room: Room, *more: object) -> list[object]:
    shard = indexed(room)
    return room.fit("--data.train_shards", f"pipe:touch {room.path}/ran; cat {shard}", *more)


def two_shards(room: Room, sizes: tuple[int, int]) -> list[object]:
    first, second = sizes
    room.shard(good=first, name="0.tar")
    room.shard(good=second, name="1.tar", first=first)
    return [room.path / "{0..1}.tar"]


def two_ranks(room: Room, *more: object, samples: int | None = None) -> list[object]:
    shards = [room.shard(good=samples)] if samples else two_shards(room, (9, 3))
    ranks = ["--trainer.strategy", "ddp", "--trainer.devices", 2, "--data.batch_size", 8]
    return room.fit("--data.train_shards", *shards, *ranks, *more)


def shared_shards(room: Room) -> list[object]:
    shard = indexed(room)
    return room.fit("--data.validation_shards", shard, shard=shard)


SHARDS = [
    refused(11, "missing-fit", "culprit.tar|no such shard", lambda r: r.fit(shard=r.path / "culprit.tar")),
    refused(11, "empty-fit", "culprit.tar|is empty", lambda r: r.fit(shard=r.write("culprit.tar", b""))),
    refused(11, "random-fit", "culprit.tar|no uncompressed tar",
            lambda r: r.fit(shard=r.write("culprit.tar", np.random.default_rng(0).bytes(5_000)))),
    refused(11, "validation_on_training_shards-fit", "validation_shards|is a training shard too", shared_shards),
    skipped(12, "cut-fit", "the shard ends at byte", lambda r: r.fit(shard=indexed(r, cut)), culprits=("train011",),
            check=nothing_is_lost),
    skipped(12, "flipped_member_byte-fit", "checksum differs", lambda r: r.fit(shard=indexed(r, member_byte)),
            culprits=("train005",), check=nothing_is_lost),
    skipped(12, "flipped_member_byte-validate", "checksum differs",
            lambda r: r.validate(shard=indexed(r, member_byte)), culprits=("train005",), check=nothing_is_lost),
    works(12, "flipped_header_byte-fit", "", lambda r: r.fit(shard=indexed(r, header_byte)), check=all_delivered),
    works(12, "flipped_header_byte_without_index-fit", "lost in a damaged tar|no readable header",
          lambda r: r.fit(shard=indexed(r, without_index(header_byte))), check=the_loss_is_said),
    works(12, "cut_without_index-fit", "lost in a damaged tar|the tar ends inside",
          lambda r: r.fit(shard=indexed(r, without_index(cut))), check=the_loss_is_said),
    *(
        in_shard(number, name, words, lambda r, name=name, members=members: members(name), (name,))
        for name, (number, words, members) in MEMBERS.items()
    ),
    in_shard(13, "interleaved", "sample without", interleaved, ("one", "other")),
    in_shard(15, "climbing", "unsafe member name", lambda r: [("../out.flac", FLAC)], ("../out.flac",)),
    in_shard(15, "absolute", "unsafe member name", lambda r: [("/tmp/out.flac", FLAC)], ("/tmp/out.flac",)),
    works(13, "duplicate_key-fit", "duplicate key|culprit", duplicate, check=first_is_delivered),
    *(
        in_shard(14, suffix, "member that could run code", executable(suffix), (f"payload_{suffix}",))
        for suffix in ("pyd", "pkl", "pth")
    ),
    refused(16, "pipe-fit", "pipe:touch|allow_pipe", pipe),
    works(16, "pipe_allowed-fit", "", lambda r: pipe(r, "--data.allow_pipe", "true", "--data.samples_per_epoch", GOOD),
          check=lambda r: (all_delivered(r), (r.path / "ran").stat())),
    works(17, "fewer_shards_than_workers-fit", "", lambda r: r.fit("--data.num_workers", 3, shard=indexed(r)),
          check=all_delivered),
    works(17, "uneven_shards-fit", "", lambda r: r.fit("--data.train_shards", *two_shards(r, (11, 1))),
          check=all_delivered),
    works(17, "uneven_shards_on_two_ranks-fit", "", two_ranks, ranks=2, check=all_delivered),
    works(17, "one_shard_for_two_ranks-fit", "", lambda r: two_ranks(r, samples=10), ranks=2, check=all_delivered),
    refused(17, "fewer_clips_than_ranks-fit", "fewer clips than the 2 processes",
            lambda r: two_ranks(r, "--data.validation_shards", r.shard(good=1, name="one.tar", first=20)), ranks=2),
]  # fmt: skip


# --- 18 to 20: edits --------------------------------------------------------------------------------------------------

A = {"audio": "a.wav", "prompt": "x"}
LINES: dict[str, tuple[str, list[dict | str]]] = {
    "bad_json": ("edits.jsonl:1|bad JSON", ['{"audio": "a.wav", ']),
    "missing_column": ("edits.jsonl:1|'audio' is missing", [{"prompt": "x"}]),
    "unknown_column": ("edits.jsonl:1|unknown column 'colour'", [A | {"colour": 1}]),
    "duplicate_id": ("edits.jsonl:2|id: 'i' is already that of", [A | {"id": "i"}, A | {"id": "i"}]),
    "output_outside": ("edits.jsonl:1|'../x.wav' leaves the output folder", [A | {"output": "../x.wav"}]),
    "absolute_output": ("edits.jsonl:1|leaves the output folder", [A | {"output": "/tmp/x.wav"}]),
    "missing_audio": ("edits.jsonl:1|gone.wav: no such audio file", [A | {"audio": "gone.wav"}]),
    "empty": ("edits.jsonl|holds no edit", []),
    "all_at_once": (
        "7 problems|:2: audio|:3: time_pooling|:4: prompt|:5: 'audio'|:6: unknown column|:7: bad JSON",
        [
            A,
            A | {"audio": "missing.wav", "id": "b"},
            A | {"time_pooling": 3, "id": "c"},
            A | {"prompt": None, "id": "d"},
            {"prompt": "x"},
            A | {"colour": 1},
            "{broken",
        ],
    ),
}
SETTINGS = [
    (18, "missing_manifest", "nowhere.csv", ["--data.manifest", "nowhere.csv"]),
    (18, "missing_folder", "nowhere", ["--data.folder", "nowhere", "--data.prompt", "x"]),
    (18, "nothing_to_edit", "Nothing to edit: give --data.manifest FILE, or --data.folder FOLDER and --data.prompt TEXT", []),
    (19, "no_prompt", "--data.prompt: is missing", ["--data.folder", "tests"]),
    (20, "pooling_3", "--data.time_pooling: 3; choose one of 1, 2, 4, 8", ["--data.time_pooling", 3]),
    (20, "pooling_0", "--data.time_pooling: 0|choose one of 1, 2, 4, 8", ["--data.time_pooling", 0]),
    (20, "frequency_pooling_5", "--data.freq_pooling: 5|1, 2, 4, 8", ["--data.freq_pooling", 5]),
    (20, "alpha_nan", "--data.ap_scale: nan; give a finite number", ["--data.ap_scale", ".nan"]),
    (20, "negative_guidance", "--data.guidance_scale: -1|0 or more", ["--data.guidance_scale", -1]),
    (20, "no_steps", "--data.num_inference_steps: 0|1 to 1000", ["--data.num_inference_steps", 0]),
    (20, "region_end_first", "--data.region: (4.0, 2.0)|after the start", ["--data.region", "[4, 2]"]),
    (20, "no_batch", "--data.batch_size: 0|1 or more", ["--data.batch_size", 0]),
]
WORDS = " ".join(["a recording of a violin solo in a large hall"] * 60)


def one_edit(room: Room, *more: object) -> list[object]:
    room.recording()
    return room.folder(*more)


def over_itself(room: Room) -> list[object]:
    room.recording()
    return room.folder("--data.output", room.path / "in")


EDITS = [
    *(refused(18, f"{name}-predict", words, lambda r, lines=lines: r.lines(*lines)) for name, (words, lines) in LINES.items()),
    refused(18, "missing_column_of_csv-predict", "edits.csv:1|column 'audio' is missing",
            lambda r: r.predict("--data.manifest", r.manifest("prompt", "x", name="edits.csv"))),
    refused(18, "input_equals_output-predict", "good.wav|would overwrite the recording", over_itself),
    refused(19, "null-predict", "edits.jsonl:1|prompt: None; give a string", lambda r: r.lines(A | {"prompt": None})),
    refused(19, "no_string-predict", "edits.jsonl:1|prompt: 5; give a string", lambda r: r.lines(A | {"prompt": 5})),
    works(19, "empty_in_a_manifest-predict", "made     1", lambda r: r.lines(A | {"prompt": ""})),
    works(19, "empty-predict", "made     1", lambda r: one_edit(r, "--data.prompt", "")),
    works(19, "long-predict", "made     1|tokens, the text encoder reads|the end is cut",
          lambda r: one_edit(r, "--data.prompt", WORDS)),
    *(
        refused(number, f"{name}-predict", words, lambda r, more=more: r.predict(*more))
        for number, name, words, more in SETTINGS
    ),
    refused(20, "region_outside-predict", "region: 0.5 to 7 s lies outside|1.00 s",
            lambda r: one_edit(r, "--data.region", "[0.5, 7]")),
    refused(20, "scheduler-predict", "Magic", lambda r: one_edit(r, "--data.scheduler", "Magic")),
    refused(20, "pooling_rates-fit", "pooling_rates.rates|1, 2, 4, 8", lambda r: r.fit("--model.pooling_rates.rates", "[3]")),
]  # fmt: skip


# --- 21 and 22: configuration, weights --------------------------------------------------------------------------------

OVERLAYS = {
    "unknown_key": ("colour", "model: {init_args: {colour: 1}}"),
    "unknown_trainer_key": ("max_step", "trainer: {max_step: 1}"),
    "wrong_type": ("max_steps|many", "trainer: {max_steps: many}"),
    "dropout": ("condition_dropout.text: 1.5", "model: {init_args: {condition_dropout: {text: 1.5}}}"),
    "batch_size_0": ("batch_size|at least 1", "data: {init_args: {batch_size: 0}}"),
    "learning_rate": (
        "learning rate",
        "model: {init_args: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: -1}}}}",
    ),
    "class_path": ("model|os.system", "model: {class_path: os.system}"),
    "callback": ("callbacks", "trainer: {callbacks: [{class_path: os.system}]}"),
    "syntax": ("overlay.yaml", "a: ["),
    "empty": ("overlay.yaml is empty", ""),
    "object": ("overlay.yaml", "!!python/object/apply:os.system ['touch CANARY']"),
}
OTHER_COMMANDS = [
    (21, "architecture-sizes", "huge", ["sizes", "--architecture", "huge"]),
    (21, "folder-sizes", "unet/config.json", ["sizes", "--folder", "tests"]),
    (21, "segments-shards", "none.csv", ["shards", "--segments", "none.csv", "--clips", "tests", "--out", "OUT"]),
    (21, "command", "nonsense", ["nonsense"]),
    (21, "no_model-fit", "model", ["fit"]),
    (21, "missing_file-fit", "nowhere.yaml", ["fit", "--config", "nowhere.yaml"]),
    (22, "missing-adapter", "none.bin", ["adapter", "--source", "none.bin"]),
]
WEIGHTS = {
    "missing_layer": ("lacks 1", lambda w: w.pop(next(iter(w)))),
    "extra_layer": ("extra", lambda w: w.update(extra=torch.ones(1))),
    "other_widths": ("shape (2, 2)", lambda w: w.update({next(iter(w)): torch.ones(2, 2)})),
    "nan": ("NaN", lambda w: next(iter(w.values())).fill_(float("nan"))),
}
NO_WEIGHTS: dict[str, Callable[[Room], bytes]] = {
    "empty": lambda r: b"",
    "zeros": lambda r: b"\0" * 100,
    "html": lambda r: b"<html></html>",
    "pickle": lambda r: pickled({"state_dict": r.payload()}),
    "torch_payload": lambda r: torch_bytes({"state_dict": {}, "loops": {}, "evil": r.payload()}, r.path / "x"),
}


def truncated(room: Room) -> bytes:
    content = safetensors.torch.save({"w": torch.ones(1000)})
    return content[: len(content) // 2]


def cut_checkpoint(room: Room) -> bytes:
    content = torch_bytes({"state_dict": {"w": torch.ones(1000)}, "loops": {}}, room.path / "x")
    return content[: len(content) // 2]


def of_other_widths(room: Room) -> list[object]:
    """The adapter of another backbone."""
    from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone

    save_random_backbone(room.path / "other", replace(TINY, unet={**TINY.unet, "block_out_channels": (16, 16, 48)}))
    path = room.path / "culprit.safetensors"
    AudioLDM2Backbone.from_pretrained(room.path / "other").new_adapter().save(path)
    return room.fit("--model.adapter", path)


def wide_encoder(room: Room) -> list[object]:
    wider = replace(TINY, audio_encoder={"embed_dim": 96, "depth": 1, "num_heads": 4})
    save_random_backbone(room.path / "wider", wider)
    return room.fit("--model.audio_encoder", room.path / "wider" / "audio_encoder")


def damaged_backbone(room: Room) -> list[object]:
    import shutil

    folder = shutil.copytree(tiny_backbone(WINDOW), room.path / "culprit")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    return room.fit("--model.backbone", folder)


def overlay(text: str) -> Callable[[Room], list[object]]:
    return lambda r: r.fit("--config", r.write("overlay.yaml", text.replace("CANARY", str(r.path / "canary"))))


def weights_file(suffix: str, content: Callable[[Room], bytes]) -> Callable[[Room], list[object]]:
    option = "--ckpt_path" if suffix == "ckpt" else "--model.adapter"
    return lambda r: r.fit(option, r.write(f"culprit.{suffix}", content(r)))


CONFIGURATION = [
    *(refused(21, f"{name}-fit", words, overlay(text)) for name, (words, text) in OVERLAYS.items()),
    *(
        refused(number, name, words, lambda r, line=line: [str(r.path / "out") if w == "OUT" else w for w in line])
        for number, name, words, line in OTHER_COMMANDS
    ),
    *(
        refused(22, f"{name}-fit", f"culprit.safetensors|{words}",
                lambda r, change=change: r.fit("--model.adapter", r.adapter(change)))
        for name, (words, change) in WEIGHTS.items()
    ),
    refused(22, "nan-predict", "culprit.safetensors|NaN",
            lambda r: one_edit(r, "--model.adapter", r.adapter(WEIGHTS["nan"][1]))),
    *(
        refused(22, f"{name}_{suffix}-fit", f"culprit.{suffix}", weights_file(suffix, content))
        for name, content in NO_WEIGHTS.items()
        for suffix in ("safetensors", "bin", "ckpt")
    ),
    refused(22, "truncated-fit", "culprit.safetensors", weights_file("safetensors", truncated)),
    refused(22, "truncated_checkpoint-fit", "culprit.ckpt", weights_file("ckpt", cut_checkpoint)),
    refused(22, "missing_adapter-predict", "culprit.bin|does not exist",
            lambda r: one_edit(r, "--model.adapter", r.path / "culprit.bin")),
    refused(22, "missing_checkpoint-fit", "culprit.ckpt|does not exist",
            lambda r: r.fit("--ckpt_path", r.path / "culprit.ckpt")),
    works(22, "no_last_checkpoint-fit", "there is no last.ckpt|training starts at the first step",
          lambda r: r.fit("--ckpt_path", "last")),
    refused(22, "no_last_checkpoint-validate", "there is no last.ckpt", lambda r: r.validate("--ckpt_path", "last")),
    refused(22, "other_backbone-fit", "culprit.safetensors", of_other_widths),
    refused(22, "other_encoder-fit", "audio_encoder|96 channels", wide_encoder),
    refused(22, "no_encoder-fit", "audio_encoder|README.md", lambda r: r.fit("--model.audio_encoder", "README.md")),
    refused(22, "damaged_backbone-fit", "culprit", damaged_backbone),
]  # fmt: skip


# --- 23 and 24: disks, sources ----------------------------------------------------------------------------------------

EXPORT = ["--trainer.callbacks+=callbacks.AdapterExport"]
CHECKPOINT = [
    "--trainer.enable_checkpointing=true",
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
]


def foreign(room: Room) -> list[object]:
    room.recording("edits/good.wav", 0.5)
    return one_edit(room)


def a_file_as_folder(room: Room) -> list[object]:
    room.write("edits", "precious")
    return one_edit(room)


def inside_a_file(room: Room) -> list[object]:
    room.write("file", "precious")
    return one_edit(room, "--data.output", room.path / "file" / "edits")


def trained_inside_a_file(room: Room) -> list[object]:
    room.write("file", "precious")
    return room.fit("--trainer.default_root_dir", room.path / "file" / "runs", shard=indexed(room))


def locked(room: Room) -> list[object]:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (room.path / "locked").mkdir(mode=0o500)
    return one_edit(room, "--data.output", room.path / "locked" / "edits")


def edited_before(room: Room) -> list[object]:
    """One edit is there, and would be made anew with another seed."""
    command = one_edit(room)
    main([str(argument) for argument in command])
    return [*command, "--data.seed", 1]


def edit_on_a_full_disk(room: Room) -> list[object]:
    command = edited_before(room)
    room.full_disk()
    return command


def edit_on_a_small_disk(room: Room) -> list[object]:
    room.small_disk("edits", 64)
    return edited_before(room)


def trained_before(room: Room, *more: str) -> list[object]:
    """An adapter and a checkpoint are there, and would be written anew."""
    command = room.fit("--trainer.logger", "false", *more, shard=indexed(room))
    main([str(argument) for argument in command])
    assert any((room.path / "runs").rglob("*.safetensors")) or any((room.path / "runs").rglob("*.ckpt"))
    return [*command, "--model.seed", 1]


def fit_on_a_full_disk(room: Room) -> list[object]:
    command = trained_before(room, *EXPORT)
    room.full_disk()
    return command


def fit_on_a_small_disk(room: Room, *more: str, kilobytes: int) -> list[object]:
    room.small_disk("runs", kilobytes)
    return room.fit(*more, shard=indexed(room))


def segments(room: Room) -> list[object]:
    for i in range(4):
        room.write(f"clips/clip{i:07d}_{i}.flac", noise(1.2))
    lines = [f'clip{i:07d}, {i}.000, {i + 1.2:.3f}, "/m/music"' for i in range(4)]
    path = room.write("segments.csv", "# YTID, start_seconds, end_seconds, positive_labels\n" + "\n".join(lines))
    classes = room.write("classes.csv", 'index,mid,display_name\n0,/m/music,"Music"\n')
    return ["shards", "--segments", path, "--clips", room.path / "clips", "--out", room.path / "out", "--branch", "null",
            "--class_labels", classes, "--workers", 1]  # fmt: skip


def shards_on_a_small_disk(room: Room) -> list[object]:
    room.small_disk("out", 64)
    return segments(room)


FOLDERS = [
    refused(23, "exists-predict", "edits/good.wav exists and was not made by predict|--data.overwrite", foreign),
    refused(23, "file_as_folder-predict", "--data.output: cannot write to", a_file_as_folder),
    refused(23, "folder_in_a_file-predict", "--data.output: cannot write to|file/edits", inside_a_file),
    refused(23, "folder_in_a_file-fit", "file", trained_inside_a_file),
    refused(23, "folder_in_a_file-shards", "file", lambda r: [*segments(r), "--out", r.write("file", "x") / "out"]),
    refused(23, "unwritable-predict", "--data.output: cannot write to|locked", locked),
    refused(23, "full_disk-predict", "No space left on device|edits/", edit_on_a_full_disk),
    refused(23, "small_disk-predict", "No space left on device|good.wav", edit_on_a_small_disk),
    refused(23, "full_disk-fit", "No space left on device|config.yaml", fit_on_a_full_disk),
    refused(23, "small_disk_at_the_adapter-fit", "No space left on device|adapter.safetensors",
            lambda r: fit_on_a_small_disk(r, *EXPORT, kilobytes=64)),
    refused(23, "small_disk_at_the_checkpoint-fit", "No space left on device|.ckpt",
            lambda r: fit_on_a_small_disk(r, *CHECKPOINT, kilobytes=64)),
    refused(23, "small_disk-shards", "No space left on device|train-000000.tar", shards_on_a_small_disk,
            leaves=("out/train-report.json",)),
    refused(24, "backbone-fit", "someone/audioldm2|hf download someone/audioldm2|embedded",
            lambda r: r.fit("--model.backbone", "someone/audioldm2")),
    refused(24, "audio_encoder-fit", "hf download someone/audiomae",
            lambda r: r.fit("--model.audio_encoder", "someone/audiomae")),
    refused(24, "backbone-predict", "hf download someone/audioldm2",
            lambda r: one_edit(r, "--model.backbone", "someone/audioldm2")),
    refused(24, "neither_path_nor_id-fit", "nowhere/at/all", lambda r: r.fit("--model.backbone", "nowhere/at/all")),
]  # fmt: skip

CASES = [*RECORDINGS, *SHARDS, *EDITS, *CONFIGURATION, *FOLDERS]


def test_the_table_is_whole():
    assert {case.number for case in CASES} == set(range(1, 25))
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, tuple[Room, End]]:
    """The room and end of the one run of all cases with members, once it was."""
    return {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, tmp_path, monkeypatch, capfd, caplog, together):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])
    with contextlib.ExitStack() as stack:
        if case.members is None or not together:
            room = Room(tmp_path, monkeypatch, stack)
            end = run(room, case.prepare(room), capfd, caplog, case.ranks)
            if case.members is not None:
                together["run"] = room, end
        else:
            room, end = together["run"]
        assert end.code == (2 if case.outcome == "refused" else 0), end.said
        assert "Traceback" not in end.said
        assert not (room.path / "canary").exists()
        {"refused": check_refused, "skipped": check_skipped, "works": check_works}[case.outcome](case, room, end)
        case.check(room)


def check_refused(case: Case, room: Room, end: End) -> None:
    assert end.error.count("error: ") == case.ranks, end.said
    assert len(end.error) < 2000
    assert not missing(case.words, end.error), end.error
    weights = (".ckpt", ".safetensors")
    notes = {n for n in end.changed if n.startswith(("runs/", "edits/.claims/")) and not n.endswith(weights)}
    assert not end.changed - notes - set(case.leaves), "nothing is made, and what was there is as it was"


def check_skipped(case: Case, room: Room, end: End) -> None:
    lines = [line for line in quarantined(room) if not line["kept"]]
    named = {line["key"] for line in lines}
    assert named >= set(case.culprits)
    assert not missing(case.words, json.dumps([line for line in lines if line["key"] in case.culprits]))
    assert delivered(room) == room.keys - named
    assert all(line["reason"] in end.said for line in lines), "a warning gives each reason"
    check_works(replace(case, words=()), room, end)


def check_works(case: Case, room: Room, end: End) -> None:
    assert "error: " not in end.said
    assert not missing(case.words, end.said), end.said


def missing(words: tuple[str, ...], text: str) -> list[str]:
    return [word for word in words if word.lower() not in text.lower()]


def test_from_a_real_shell():
    command = ["fit", "--config", "configs/base.yaml", "--model.backbone", "nowhere/at/all"]
    done = subprocess.run([sys.executable, "-m", "apa_lightning", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
