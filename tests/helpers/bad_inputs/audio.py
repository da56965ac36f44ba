"""Bad inputs 1 to 10: recordings."""

import numpy as np
import soundfile
from recordings import BROKEN, noise, three_hours
from shard_tools import encode, tone

from bad_inputs.cases import Case, all_delivered, refused, skipped, works
from bad_inputs.ends import quarantined
from bad_inputs.room import Room

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


def silence_is_remarked(room: Room) -> None:
    all_delivered(room)
    assert [line["key"] for line in quarantined(room)] == ["culprit"]


CASES = [
    *(edited(name, words) for name, (_, words) in AUDIO.items()),
    skipped(1, "html-validate", "not a readable", lambda r: r.validate(shard=r.clip(*audio("html", r)))),
    refused(3, "cut_behind_the_first_seconds-predict", "culprit|1 of 2 edits failed", late_cut,
            leaves=("edits/good.wav", "edits/results.jsonl", "edits/results.csv")),
    works(8, "silence-fit", "digital silence|culprit", lambda r: r.fit(shard=r.clip(*audio("silence", r))),
          check=silence_is_remarked),
    works(9, "three_hours-fit", "", lambda r: r.fit(shard=r.clip(*audio("three_hours", r))), check=all_delivered),
    works(10, "formats-predict", f"made     {len(FORMATS)}", formats_edited, check=formats_are_kept),
    works(10, "formats-fit", "", formats_trained, check=all_delivered),
]  # fmt: skip
