"""Bad inputs 23 and 24: full disks, output folders, weights that are not there."""

import os

import pytest
from recordings import noise

from apa_lightning.cli.main import main
from bad_inputs.cases import indexed, one_edit, refused
from bad_inputs.room import Room

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


CASES = [
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
