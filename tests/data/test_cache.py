from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from counterpoise.data import cache as cache_module
from counterpoise.data.cache import CacheError, DecodeCache
from counterpoise.data.readers import Array, Frames, Image, ReadError


class CountingArray(Array):
    """Writes a line for every decode, so that several processes can be counted."""

    def __init__(self, log: str = ""):
        super().__init__()
        self.log = log

    decoded_by = ("key",)

    def load(self, cell: str) -> torch.Tensor:
        with open(self.log, "a") as file:
            file.write(f"{cell}\n")
        return super().load(cell)


@pytest.fixture
def files(tmp_path) -> list[str]:
    folder = tmp_path / "data"
    folder.mkdir()
    old = time.time() - 100
    for i in range(8):
        np.save(folder / f"{i}.npy", np.random.default_rng(i).standard_normal((4, 3)).astype(np.float32))
        os.utime(folder / f"{i}.npy", (old, old))
    return [str(folder / f"{i}.npy") for i in range(8)]


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "decoded.log"


def decoded(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def entries(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "contents.log")


def epoch(directory: Path, log: Path, files: list[str]) -> None:
    cached, plain = DecodeCache(directory, CountingArray(str(log))), Array()
    for cell in files:
        assert torch.equal(cached.decode(cell), plain.decode(cell))


def test_a_second_epoch_decodes_nothing(tmp_path, files, log):
    cached = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    for _ in range(3):
        for cell in files:
            assert torch.equal(cached.decode(cell), Array().decode(cell))
    assert decoded(log) == 8


def two_epochs(rank: int, barrier: Any, directory: Path, log: Path, files: list[str]) -> None:
    epoch(directory / "shared", log, files[rank::2])
    barrier.wait(60)
    epoch(directory / "shared", log, files[1 - rank :: 2])  # what the other one has decoded
    barrier.wait(60)
    epoch(directory / "at once", log.with_name("at once.log"), files)


def test_processes_share_entries(tmp_path, files, log):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [context.Process(target=two_epochs, args=(r, barrier, tmp_path / "cache", log, files)) for r in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert decoded(log) == 8
    assert len(entries(tmp_path / "cache" / "shared")) == len(entries(tmp_path / "cache" / "at once")) == 8
    assert 8 <= decoded(log.with_name("at once.log")) <= 16


def test_contents_are_hashed_once(tmp_path, files, log, monkeypatch):
    epoch(tmp_path / "cache", log, files)
    monkeypatch.setattr(cache_module, "_digest_of", lambda path: pytest.fail(f"{path} was hashed again"))
    epoch(tmp_path / "cache", log, files)  # another object, as in another process
    assert decoded(log) == 8


def test_content_is_the_key(tmp_path, files, log):
    cached = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    cached.decode(files[0])
    copy = tmp_path / "copy.npy"
    copy.write_bytes(Path(files[0]).read_bytes())
    cached.decode(str(copy))
    assert decoded(log) == 1
    stat = os.stat(files[0])
    np.save(files[0], np.zeros((4, 3), np.float32))  # the same size
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert torch.equal(cached.decode(files[0]), torch.zeros(4, 3))
    assert decoded(log) == 2


def test_a_file_changed_within_one_tick_is_noticed(tmp_path, log):
    path = tmp_path / "a.npy"
    cached = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    np.save(path, np.zeros(3))
    stat = os.stat(path)
    assert cached.decode(str(path)).sum() == 0
    np.save(path, np.ones(3))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cached.decode(str(path)).sum() == 3


def test_settings_of_decoding_separate_entries_and_others_do_not(tmp_path):
    path = str(tmp_path / "a.png")
    Pillow.new("RGB", (20, 10), (9, 8, 7)).save(path)
    directory = tmp_path / "cache"
    shapes = [tuple(DecodeCache(directory, Image(**o)).decode(path).shape) for o in ({}, {"flip": 0}, {"channels": 1})]
    assert shapes == [(3, 10, 20), (3, 10, 20), (1, 10, 20)]
    assert len(entries(directory)) == 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float16, torch.bool])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_every_dtype_comes_back(tmp_path, monkeypatch, files, dtype, shape):
    value = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    reader = Array()
    monkeypatch.setattr(reader, "load", lambda cell: value)
    cached = DecodeCache(tmp_path / "cache", reader)
    cached.decode(files[0])
    again = cached.decode(files[0])
    assert again.dtype == dtype
    assert torch.equal(again, value)


def test_entries_cannot_be_changed_by_writing_to_a_tensor(tmp_path, files):
    cached = DecodeCache(tmp_path / "cache", Array())
    expected = cached.decode(files[0]).clone()
    cached.decode(files[0]).zero_()
    assert torch.equal(cached.decode(files[0]), expected)


def test_read_equals_the_reader(tmp_path):
    path = str(tmp_path / "a.png")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    reader = Image(size=16)
    cached = DecodeCache(tmp_path / "cache", reader)
    for seed in (0, 0, 1):
        expected = reader.read(path, torch.Generator().manual_seed(seed))
        assert torch.equal(cached.read(path, torch.Generator().manual_seed(seed)), expected)
    assert torch.equal(cached.read(path), reader.read(path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-4],
        lambda b: b[:40],
        lambda b: b"",
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b"x" + b[1:],
        lambda b: b[:12] + b"\xff" + b[13:],
        lambda b: b[:13] + b"\xff" + b[14:],
    ],
    ids=["truncated", "header cut", "empty", "bit flipped", "magic", "dtype", "dimensions"],
)
def test_a_damaged_entry_is_decoded_again(tmp_path, files, log, caplog, damage):
    epoch(tmp_path / "cache", log, files[:1])
    (entry,) = entries(tmp_path / "cache")
    entry.write_bytes(damage(entry.read_bytes()))
    epoch(tmp_path / "cache", log, files[:1])
    assert decoded(log) == 2
    assert "damaged" in caplog.text
    epoch(tmp_path / "cache", log, files[:1])
    assert decoded(log) == 2


def test_a_torn_line_of_the_log_is_ignored(tmp_path, files, log):
    epoch(tmp_path / "cache", log, files)
    names = tmp_path / "cache" / "contents.log"
    content = names.read_bytes()
    names.write_bytes(content[:30] + b"\n" + content[65:-20])
    epoch(tmp_path / "cache", log, files)
    assert decoded(log) == 8


def test_bad_files_raise_every_time_and_leave_nothing(tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"text")
    cached = DecodeCache(tmp_path / "cache", Array())
    for _ in range(2):
        with pytest.raises(ReadError, match="no NumPy file"):
            cached.decode(str(tmp_path / "bad.npy"))
    with pytest.raises(ReadError, match=r"none.npy: no such file"):
        cached.decode(str(tmp_path / "none.npy"))
    with pytest.raises(ReadError, match="no such folder"):
        DecodeCache(tmp_path / "cache", Frames()).decode(str(tmp_path / "none"))
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only file system")]
)
def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path, files, monkeypatch, number, reason):
    cached = DecodeCache(tmp_path / "cache", Array())
    cached.decode(files[0])

    def full(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CacheError, match=f"cannot be written, {reason}") as caught:
        cached.decode(files[1])
    assert caught.value.errno == number
    assert str(tmp_path / "cache") in str(caught.value)
    assert len(entries(tmp_path / "cache")) == 1
    assert torch.equal(cached.decode(files[0]), Array().decode(files[0]))


def test_a_full_disk_shows_while_the_log_is_written_too(tmp_path, files, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CacheError, match="the disk is full"):
        DecodeCache(tmp_path / "cache", Array()).decode(files[0])


@pytest.mark.parametrize("mapped", [1, 1 << 20], ids=["mapped", "read"])
def test_large_and_small_entries_are_the_same(tmp_path, files, log, monkeypatch, mapped):
    monkeypatch.setattr(cache_module, "_MAPPED", mapped)
    for _ in range(2):
        epoch(tmp_path / "cache", log, files)
    assert decoded(log) == 8
    cached = DecodeCache(tmp_path / "cache", Array())
    expected = cached.decode(files[0]).clone()
    cached.decode(files[0]).zero_()  # stays in this process
    assert torch.equal(cached.decode(files[0]), expected)
    entry = next((tmp_path / "cache").glob("countingarray-*/*/*"))
    entry.write_bytes(b"")
    epoch(tmp_path / "cache", log, files)
    assert decoded(log) == 9


def test_many_tensors_at_once_need_no_open_file_each(tmp_path, files, monkeypatch):
    monkeypatch.setattr(cache_module, "_MAPPED", 1)
    resource = pytest.importorskip("resource")
    cached = DecodeCache(tmp_path / "cache", Array())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limit[1]))
    try:
        samples = [cached.read(files[i % 8]) for i in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(samples) == 100


def test_known_entries_are_read_into_their_places(tmp_path, files, log):
    first = torch.stack([DecodeCache(tmp_path / "cache", CountingArray(str(log))).decode(file) for file in files])
    out = torch.full_like(first, -1)
    cache = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    assert cache.fill(files, out) == list(range(8))  # written by another one and not verified yet
    for file in files[:6]:
        cache.decode(file)
    assert cache.fill(files, out) == [6, 7]
    assert torch.equal(out[:6], first[:6])
    assert cache.fill([], out[:0]) == []
    one = first[:1]
    for wrong in (torch.empty(1, 3, *one.shape[1:]), one.double(), one.flatten(1), one.half()):
        assert cache.fill(files[:1], wrong) == [0]
    entry = entry_of(cache, files[0])
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole + b"0"):
        entry.write_bytes(damaged)
        assert cache.fill(files[:2], out[:2]) == [0]
    entry.unlink()
    assert cache.fill([files[0], str(tmp_path / "nowhere"), files[1]], out[:3]) == [0, 1]
    assert torch.equal(out[2], first[1])
    assert decoded(log) == 8


def entry_of(cache: DecodeCache, file: str) -> Path:
    return Path(cache._path(cache._content(file)))


def test_an_entry_that_is_not_finite_is_not_read_past_its_reader(tmp_path, files, monkeypatch):
    cache = DecodeCache(tmp_path / "cache", Array())
    monkeypatch.setattr(cache.reader, "decode", lambda cell: torch.tensor([1.0, float("nan")]))
    cache.decode(files[0])
    again = DecodeCache(tmp_path / "cache", Array())
    again.decode(files[0])
    assert cache.fill(files[:1], torch.empty(1, 2)) == again.fill(files[:1], torch.empty(1, 2)) == [0]


def test_what_a_process_wrote_it_need_not_verify(tmp_path, files, log):
    cache = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    first = cache.decode(files[0])[None]
    out = torch.empty_like(first)
    assert cache.fill(files[:1], out) == []
    assert torch.equal(out, first)


@pytest.mark.parametrize("call", ["write", "replace", "log"])
@pytest.mark.parametrize("times", [1, 3, 9])
def test_the_cache_is_deleted_at_any_moment_of_filling_it(tmp_path, files, log, monkeypatch, call, times):
    directory, left = tmp_path / "cache", [times]
    cached, plain = DecodeCache(directory, CountingArray(str(log))), Array()

    def deleted_before(function, matters):
        def inner(*given, **options):
            if left[0] and matters(*given):
                left[0] -= 1
                shutil.rmtree(directory, ignore_errors=True)
            return function(*given, **options)

        return inner

    if call == "write":
        monkeypatch.setattr(cache_module, "_write", deleted_before(cache_module._write, lambda *_: True))
    elif call == "replace":
        monkeypatch.setattr(os, "replace", deleted_before(os.replace, lambda source, _: str(source).endswith(".tmp")))
    else:
        monkeypatch.setattr(os, "open", deleted_before(os.open, lambda path, *_: str(path).endswith("contents.log")))
    for file in files:
        assert torch.equal(cached.decode(file), plain.decode(file))
    assert left == [0]
    monkeypatch.undo()
    epoch(directory, log, files)
    before = decoded(log)
    epoch(directory, log, files)
    assert decoded(log) == before  # everything is there now
    assert not list(directory.rglob("*.tmp"))


def test_a_cache_that_goes_each_time_is_gone_without(tmp_path, files, monkeypatch):
    directory, write = tmp_path / "cache", cache_module._write

    def gone(*given):
        write(*given)
        shutil.rmtree(directory)

    monkeypatch.setattr(cache_module, "_write", gone)
    cached, plain = DecodeCache(directory, Array()), Array()
    for file in files:
        assert torch.equal(cached.decode(file), plain.decode(file))


def test_a_deleted_log_is_read_from_its_beginning(tmp_path, files, log, monkeypatch):
    first = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    for file in files:
        first.decode(file)
    watching = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    watching.decode(files[0])
    shutil.rmtree(tmp_path / "cache")
    other = DecodeCache(tmp_path / "cache", CountingArray(str(log)))
    other.decode(files[-1])
    watching._contents.clear()
    monkeypatch.setattr(cache_module, "_digest_of", None)  # it need not hash what the other has
    watching.decode(files[-1])
