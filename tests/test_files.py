"""Files that appear whole or not at all, and archives that know when they are damaged."""

import io
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from counterpoise import _files
from counterpoise._files import seal, sweep, verify, write_text, writing


def drafts(folder):
    return [name for name in os.listdir(folder) if name.endswith(".part")]


# -- writing -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("mode", "content"), [("w", "zwölf\n"), ("wb", b"\0\1"), ("w+b", b"")])
def test_a_new_file_and_one_in_place_of_another(tmp_path, mode, content):
    path = tmp_path / "result.json"
    for _ in range(2):
        with writing(path, mode) as file:
            file.write(content)
            assert len(drafts(tmp_path)) == 1
        found = path.read_bytes()
        assert found == (content.encode() if isinstance(content, str) else content)
        assert os.listdir(tmp_path) == ["result.json"]


def test_an_error_inside_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.yaml"
    write_text(path, "old")

    def stopped():
        with writing(path) as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", ["old", None])
def test_a_disk_that_fills_leaves_the_old_file_or_none(tmp_path, monkeypatch, call, before):
    path = tmp_path / "metrics.jsonl"
    if before is not None:
        write_text(path, before)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_text(path, "new")
    assert os.listdir(tmp_path) == ([path.name] if before else [])
    assert before is None or path.read_text() == before


def test_flushed_renamed_and_the_folder_flushed_in_this_order(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace

    def synced(number):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")).rpartition(".")[2])
        sync(number)

    def replaced(source, target):
        calls.append("renamed")
        replace(source, target)

    folder = tmp_path / "run.folder"
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_text(folder / "result.json", "{}")
    assert calls == ["part", "renamed", "folder"]


def test_links_are_replaced_and_never_followed(tmp_path):
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("do not touch")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("result.json", "result.json.part", ".result.json.part", ".result.json.abc.part"):
        (folder / name).symlink_to(theirs)
    write_text(folder / "result.json", "new")
    assert theirs.read_text() == "do not touch"
    assert not (folder / "result.json").is_symlink()
    assert (folder / "result.json").read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a folder", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if kind == "device" else tmp_path)
    before = os.lstat(path)
    with pytest.raises(OSError, match="is a folder or a device"):
        write_text(path, "new")
    assert os.lstat(path).st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["out"]


def test_a_name_as_long_as_names_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".csv")
    write_text(path, "a")
    assert os.listdir(tmp_path) == [path.name]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "data.json"
    with writing(path) as first:
        first.write("first")
        with writing(path) as second:
            second.write("second")
            assert len(drafts(tmp_path)) == 2
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["data.json"]


KILLED = """
import os, sys
from counterpoise._files import writing
with writing(sys.argv[1]) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("again", ["write_text(path, 'whole')", "sweep(path.parent)"])
def test_what_a_killed_process_was_writing_goes_next_time_and_what_a_live_one_writes_stays(tmp_path, again):
    path = tmp_path / "result.json"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(drafts(tmp_path)) == 1
    with writing(tmp_path / "result.json") as file:
        eval(again, {"write_text": write_text, "sweep": sweep, "path": path})
        assert drafts(tmp_path) == [os.path.basename(file.name)]
    assert drafts(tmp_path) == []


def test_without_locks_nothing_is_taken_for_dead(tmp_path, monkeypatch):
    (tmp_path / ".result.json.abc.part").write_text("of somebody")
    monkeypatch.setattr(_files, "fcntl", None)
    write_text(tmp_path / "result.json", "new")
    assert sorted(os.listdir(tmp_path)) == [".result.json.abc.part", "result.json"]


# -- archives ------------------------------------------------------------------------------------------
def archive(path, sealed):
    with path.open("w+b") as file:
        torch.save({"weights": torch.arange(300.0), "epoch": 3, "names": ["a", "b"]}, file)
        if sealed:
            seal(file)
    return path.read_bytes()


def test_a_sealed_archive_is_one_that_everybody_reads(tmp_path):
    path = tmp_path / "a.ckpt"
    archive(path, sealed=True)
    assert torch.load(path, weights_only=True)["epoch"] == 3
    assert torch.load(path, weights_only=True, mmap=True)["names"] == ["a", "b"]
    assert zipfile.ZipFile(path).testzip() is None
    with path.open("rb") as file:
        verify(file)
        assert torch.equal(torch.load(file, weights_only=True)["weights"], torch.arange(300.0))


def test_every_flipped_bit_of_a_sealed_archive_is_found_or_harmless(tmp_path):
    whole = archive(tmp_path / "a.ckpt", sealed=True)
    comment = len(whole) - _files._COMMENT - 2
    assert comment > 2000
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file = io.BytesIO(damaged)
        try:
            verify(file)
        except ValueError:
            continue
        assert place >= comment  # in the length of the comment alone
        assert torch.load(file, weights_only=True)["epoch"] == 3


def test_flipped_bits_in_the_content_of_an_archive_without_digest(tmp_path):
    whole = archive(tmp_path / "a.pt", sealed=False)
    content = torch.arange(300.0).numpy().tobytes()
    first = whole.index(content)
    verify(io.BytesIO(whole))
    for place in (first, first + len(content) // 2, first + len(content) - 1, whole.index(b"names")):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        with pytest.raises(ValueError, match=r"not what was written: the checksum of '.*' differs"):
            verify(io.BytesIO(damaged))


@pytest.mark.parametrize("sealed", [True, False])
def test_a_cut_archive_is_found_or_left_to_its_reader(tmp_path, sealed):
    whole = archive(tmp_path / "a.ckpt", sealed)
    for length in range(1, len(whole)):
        file = io.BytesIO(whole[:length])
        try:
            verify(file)
        except ValueError:
            continue
        with pytest.raises(Exception, match=r".+"):
            torch.load(file, weights_only=True)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\3\4 and then nothing", bytes(500)])
def test_what_is_no_archive_passes(content):
    file = io.BytesIO(content)
    verify(file)
    assert file.tell() == 0


def test_arrays_of_numpy_pass(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(5))
    with (tmp_path / "a.npz").open("rb") as file:
        verify(file)
