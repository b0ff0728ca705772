"""The command line's .npz source: what its arrays are."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoise.data.source import Arrays


def _file(tmp_path: Path, **more: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 40, (30, 5))
    words[0, 0] = 40
    path = tmp_path / "x.npz"
    np.savez(path, words=words, vector=rng.normal(size=(30, 3)), y=np.arange(30) % 2, **more)
    return str(path)


def test_token_numbers_are_text_with_a_vocabulary_from_the_data(tmp_path: Path) -> None:
    layouts = Arrays(_file(tmp_path), kinds={"words": "text"}).layouts()
    assert layouts["words"] == ("text", (5,), {"vocab_size": 41})
    assert layouts["vector"] == ("array", (3,), {})
    assert Arrays(_file(tmp_path)).layouts()["words"].kind == "array"


def test_a_kind_may_replace_what_the_axes_say(tmp_path: Path) -> None:
    path = _file(tmp_path, sound=np.zeros((30, 8, 4)))
    assert Arrays(path).layouts()["sound"].kind == "sequence"
    assert Arrays(path, kinds={"sound": "spectrogram"}).layouts()["sound"] == ("spectrogram", (8, 4), {})


def test_wrong_kinds_are_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with pytest.raises(ValueError, match=r"Unknown modality 'word'\. Did you mean 'words'"):
        Arrays(path, kinds={"word": "text"})
    with pytest.raises(ValueError, match=r"Unknown kinds\['words'\] 'txt'. Did you mean 'text'"):
        Arrays(path, kinds={"words": "txt"})
    with pytest.raises(ValueError, match=r"the text 'vector' must be .* token numbers.*float64"):
        Arrays(path, kinds={"vector": "text"}).layouts()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": np.array(["a"] * 30)}, "array 'id' must be numbers, .*it holds <U1. Leave it out of the file"),
        ({"y": np.array(["a", "b"] * 15, object)}, "array 'y' holds Python objects, .*save x.astype"),
        ({"y": np.arange(30) / 2}, "y must be integers or strings"),
        ({"z": np.full((30, 2), np.nan)}, r"inputs\['z'\] has NaN or infinity in sample 0"),
    ],
)
def test_wrong_arrays_are_named_with_their_file(tmp_path: Path, arrays: dict, message: str) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **{"vector": np.ones((30, 3)), "y": np.arange(30) % 2, **arrays})
    with pytest.raises(ValueError, match=rf"x\.npz: {message}"):
        Arrays(str(path)).splits()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz is no \.npz file. Write one with numpy.savez"):
        Arrays(str(tmp_path / "text.npz"))
    with pytest.raises(FileNotFoundError, match=r"no file .*txt\.npz. Did you mean 'text\.npz'"):
        Arrays(str(tmp_path / "txt.npz"))
    np.savez(tmp_path / "l.npz", vector=np.ones((30, 3)), labels=np.arange(30) % 2)
    with pytest.raises(ValueError, match=r"Unknown label array 'y'.*Name the array of the labels: --data\.label"):
        Arrays(str(tmp_path / "l.npz"))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint64", "bool", ">i4"])
def test_whole_numbers_become_what_encoders_take(tmp_path: Path, dtype: str) -> None:
    numbers = np.arange(30 * 12).reshape(30, 12) % 7
    arrays = {"image": numbers.reshape(30, 1, 3, 4), "steps": numbers.reshape(30, 6, 2), "words": numbers}
    path = str(tmp_path / "x.npz")
    np.savez(path, y=np.arange(30) % 2, **{name: array.astype(dtype) for name, array in arrays.items()})
    data = Arrays(path, kinds={"words": "text"} if dtype != "bool" else {}).splits()
    for name in arrays:
        got = data.train.batch([0, 1], name, None)
        wanted = torch.int64 if name == "words" and dtype != "bool" else torch.float32
        assert got.dtype == wanted
        rows = [int(i) for i in data.train.ids[:2]]
        assert got.tolist() == arrays[name][rows].astype(dtype).tolist()


def _damaged(tmp_path: Path, change) -> str:
    path = Path(_file(tmp_path, z=np.zeros((30, 400))))
    np.savez_compressed(path, z=np.random.default_rng(0).normal(size=(30, 40)), y=np.arange(30) % 2)
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return str(path)


def _flip(at: int):
    def change(content: bytearray) -> None:
        content[at] ^= 0x10

    return change


def _in_directory(at: int, value: int):
    def change(content: bytearray) -> None:
        content[content.index(b"PK\1\2") + at] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _flip(200),  # in the compressed bytes
        _flip(5000),
        lambda c: c.__delitem__(slice(300, 400)),
        _in_directory(10, 99),  # another kind of compression
        _in_directory(8, 1),  # encrypted
        _in_directory(20, 1),  # a byte long
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change) -> None:
    with pytest.raises(ValueError, match=r"x\.npz: .*(damaged|encrypted)"):
        Arrays(_damaged(tmp_path, change))


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    path = Path(_file(tmp_path))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"x\.npz: array 'readme\.txt' is no array of NumPy"):
        Arrays(str(path))
    path = Path(_file(tmp_path))
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("y.npy", file.read("vector.npy"))
    with pytest.raises(ValueError, match=r"x\.npz: holds the array 'y' twice"):
        Arrays(str(path))


def test_an_archive_that_claims_too_much_is_refused_before_room_is_made(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("y.npy", _header((2**40,)) + bytes(100))
    with pytest.raises(ValueError, match=r"array 'y' is truncated or damaged \(its header.* 4398046511104 bytes; 100"):
        Arrays(str(path))


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()
