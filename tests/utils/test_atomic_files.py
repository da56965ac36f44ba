"""Whole files: the old one stays until the new one is on the disk."""

import errno
import os
import stat

import pytest

from apa_lightning.utils.atomic_files import atomic_path, file_lock, remove_leftovers, write_file


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_files_and_folders_have_the_users_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "deep" / "a.txt") as temporary:
            assert temporary.parent == tmp_path / "deep"
            assert temporary.suffix == ".txt"  # some writers choose the format by it
            temporary.write_text("new")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "a.txt").stat().st_mode) == 0o640
    assert names(tmp_path / "deep") == ["a.txt"]


def test_texts_are_written_as_utf_8_and_bytes_as_they_are(tmp_path):
    for content, written in (("é\n", b"\xc3\xa9\n"), (b"\xff", b"\xff"), (memoryview(b"abc"), b"abc")):
        write_file(tmp_path / "new" / "file", content)
        assert (tmp_path / "new" / "file").read_bytes() == written
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_file_and_folder_are_synced_around_the_renaming(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    monkeypatch.setattr(
        os, "fsync", lambda handle: seen.append((stat.S_ISDIR(os.fstat(handle).st_mode), path.exists()))
    )
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert seen == [(False, False), (True, True)]


def test_a_full_disk_leaves_the_old_file_and_what_it_belongs_to(tmp_path, monkeypatch):
    path, index = tmp_path / "a.tar", tmp_path / "a.json"
    path.write_text("old")
    index.write_text("of the old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"), atomic_path(path, outdates=index) as temporary:
            temporary.write_text("new")
    assert (path.read_text(), index.read_text(), names(tmp_path)) == ("old", "of the old", ["a.json", "a.tar"])

    with atomic_path(path, outdates=index) as temporary:
        temporary.write_text("new")
        assert index.exists()
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.tar"])


def test_leftovers_are_those_of_this_file_alone(tmp_path):
    half = "_"
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.wav") as temporary:
        half = temporary.name
        temporary.unlink()
    others = ["a.wav", "a.tmp.wav", ".a.tmp.wav", ".ab.01234567.tmp.wav", ".a.01234567.tmp.flac", ".a.0.tmp.wav"]
    for name in (half, *others):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.wav")
    assert names(tmp_path) == sorted(others)
    remove_leftovers(tmp_path / "nowhere" / "a.wav")


def test_leftovers_of_a_folder_are_those_of_all_its_files(tmp_path):
    others = ["a.wav", ".a.wav", ".hidden.tmp.wav", ".a.0123456.tmp.wav"]
    for name in (".a.01234567.tmp.wav", ".b c.89abcdef.tmp.png", ".plain.01234567.tmp", *others):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(others)


def test_one_process_at_a_time(tmp_path):
    lock = tmp_path / "work.lock"
    lock.touch()  # of a killed process
    with file_lock(lock) as held, file_lock(lock, wait=False) as also:
        assert (held, also) == (True, False)
    assert not names(tmp_path)
