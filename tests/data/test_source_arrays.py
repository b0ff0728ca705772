"""The command line's .npz source: what its arrays are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
        ({"y": np.array(["a", "b"] * 15, object)}, "array 'y' must be plain numbers or text: .*save x.astype"),
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
