"""Bad inputs 11 to 17: shards, and bad recordings in shards."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from markers import pickled, torch_bytes
from shard_tools import encode, flip, sample, special, tone

from bad_inputs.audio import AUDIO, audio
from bad_inputs.cases import Case, all_delivered, indexed, refused, skipped, works
from bad_inputs.ends import delivered, quarantined
from bad_inputs.room import GOOD, Room
from datamodules.shards.index import index_path


def in_shard(number: int, name: str, words: str, members: Callable[[Room], list], culprits: tuple[str, ...]) -> Case:
    return skipped(number, f"{name}-fit", words, all_in_one_shard, culprits=culprits, members=members)


def all_in_one_shard(room: Room) -> list[object]:
    groups = [case.members(room) for case in CASES if case.members]
    room.keys |= {key for case in CASES if case.members for key in case.culprits}
    members = [member for group in groups for member in group]
    share = ["--data.max_broken_share", 0.9, "--data.batch_size", GOOD + len(groups)]
    return room.fit(*share, shard=room.shard(*members))


def clip(key: str, content: bytes, suffix: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.{suffix}", content), (f"{key}.json", b'{"labels": ["Piano"]}')]


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


CASES = [
    *(
        in_shard(number, name, words, lambda r, name=name: clip(name, *audio(name, r)), (name,))
        for name, (number, words) in AUDIO.items()
        if name not in ("silence", "three_hours")
    ),
    refused(11, "missing-fit", "culprit.tar|no such shard", lambda r: r.fit(shard=r.path / "culprit.tar")),
    refused(11, "empty-fit", "culprit.tar|is empty", lambda r: r.fit(shard=r.write("culprit.tar", b""))),
    refused(11, "random-fit", "culprit.tar|not an uncompressed tar",
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
