"""Twitter2015: generated folders of the layout of TomBERT, and its own lists where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise.data import Text
from counterpoise.datasets import files, get
from counterpoise.datasets.twitter2015 import parse

DATA = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[3] / "shared" / "data"))
LISTS = DATA / "splits" / "twitter2015" / "tombert"
official = pytest.mark.skipif(not LISTS.is_dir(), reason=f"needs the lists of TomBERT in {LISTS} (COUNTERPOISE_DATA)")

HEADER = "index\t#1 Label\t#2 ImageID\t#3 String\t#3 String"
SHORT = "index\t#1 ImageID\t#2 String\t#2 String"
SENTENCES = ["RT @ anna : $T$ can't lose # win", '" $T$ and Bob in town', "Hey $T$ !"]


def write_picture(path: Path, seed: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 32)).save(path)


def write_list(path: Path, rows: list[tuple[object, ...]], header: str = HEADER, ending: str = "\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_bytes((ending.join(lines) + ending).encode())


def write_raw(root: Path, lowest: int = 0, per_part: int = 6) -> dict[str, list[tuple[object, ...]]]:
    """Lists and pictures; two targets share a picture, as in the published lists."""
    written = {}
    for p, (part, header) in enumerate([("train", HEADER), ("dev", HEADER), ("test", SHORT)]):
        rows = [(i + 1, i % 3 + lowest, f"{p}{i // 2}.jpg", SENTENCES[i % 3], f"Target {i}") for i in range(per_part)]
        write_list(root / "absa_data" / "twitter2015" / f"{part}.tsv", rows, header, "\r\n" if p else "\n")
        for i in range(0, per_part, 2):
            write_picture(root / "twitter2015_images" / f"{p}{i // 2}.jpg", 10 * p + i)
        written[part] = rows
    return written


def manifest(out: Path, name: str = "manifest") -> list[dict[str, str]]:
    return files.read_table(out / f"{name}.csv")


@pytest.mark.parametrize("lowest", [0, -1])
def test_both_headers_both_numberings_and_both_forms(tmp_path, lowest):
    write_raw(tmp_path / "raw", lowest)
    aware = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "aware", progress=False)
    assert aware.counts == {"train": 6, "val": 6, "test": 6}
    assert not aware.excluded
    rows = manifest(aware.out)
    assert [r["label"] for r in rows[:3]] == ["negative", "neutral", "positive"]
    assert rows[0]["text"] == "Target 0 : RT @ anna : Target 0 can't lose # win"
    assert rows[1]["text"] == 'Target 1 : " Target 1 and Bob in town'
    assert (rows[0]["id"], rows[6]["id"], rows[12]["id"]) == ("train-1", "val-1", "test-1")
    assert rows[0]["group"] == rows[1]["group"] != rows[2]["group"]
    assert len(list((aware.out / "images").iterdir())) == 9
    blind = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "blind", split="blind", progress=False)
    assert [r["text"] for r in manifest(blind.out)[:3]] == SENTENCES
    found = {c.item: c for c in blind.checks}
    assert (found["train: samples in the list"].expected, found["train: samples in the list"].found) == ("3179", "6")
    assert found["groups both in test and outside"].ok
    assert not found["SHA-256 of list train"].ok


def test_the_published_preprocessing():
    readers = get("twitter2015").readers()
    text, image = readers["text"], readers["image"]
    assert (text.tokenizer, text.words, text.cleaning) == ("bert-base-uncased", 50, "letters")
    assert (image.size, image.scale, image.interpolation, image.normalize) == (224, (0.5, 1.0), "bicubic", "clip")
    assert image.randaugment == (2, 7)


def test_what_is_missing_is_listed(tmp_path):
    write_raw(tmp_path / "raw")
    (tmp_path / "raw" / "twitter2015_images" / "00.jpg").unlink()
    broken = tmp_path / "raw" / "twitter2015_images" / "11.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    made = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    reasons = {row["id"]: row["reason"] for row in manifest(made.out, "excluded")}
    assert reasons["train-1"] == reasons["train-2"] == "no picture: there is no 00.jpg"
    assert reasons["val-3"].startswith("damaged: ")
    assert made.excluded == {"no picture": 2, "damaged": 2}
    assert "2 x no picture" in made.card.read_text()


def test_repeated_ids_and_unknown_labels_are_counted(tmp_path):
    rows = write_raw(tmp_path / "raw")["train"]
    rows[1] = (1, *rows[1][1:])
    rows[2] = (3, 7, *rows[2][2:])
    write_list(tmp_path / "raw" / "absa_data" / "twitter2015" / "train.tsv", rows)
    made = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert made.excluded == {"id listed twice": 1, "unknown label": 1}


def test_wrong_lists_are_named(tmp_path):
    path = tmp_path / "train.tsv"
    write_list(path, [(1, 0, "a.jpg", "hi $T$", "x")], header="Label\tImageID\tString")
    with pytest.raises(ValueError, match=r"train.tsv, line 1: the header must start with 'index', tab"):
        parse(path)
    write_list(path, [(1, 0, "a.jpg", "hi $T$", "x"), (2, 0, "a.jpg", "hi $T$")])
    with pytest.raises(ValueError, match=r"line 3: 5 tab-separated fields .*; got 4"):
        parse(path)
    write_list(path, [(1, 0, "a.jpg", "hi", "x")])
    with pytest.raises(ValueError, match=r"line 2: the sentence must hold the placeholder \$T\$"):
        parse(path)
    path.write_bytes(HEADER.encode() + "\n1\t0\ta.jpg\tcaf\xe9 $T$\tx\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 2: byte 0xe9 is not UTF-8"):
        parse(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="the header must start"):
        parse(path)


def test_missing_folders_say_where_to_get_them(tmp_path):
    write_raw(tmp_path / "raw")
    (tmp_path / "raw" / "absa_data" / "twitter2015" / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"train.tsv, dev.tsv, test.tsv(.|\n)*jefferyYu/TomBERT"):
        get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    write_raw(tmp_path / "other")
    os.rename(tmp_path / "other" / "twitter2015_images", tmp_path / "other" / "pictures")
    with pytest.raises(FileNotFoundError, match="folder twitter2015_images below"):
        get("twitter2015").prepare(tmp_path / "other", tmp_path / "out", progress=False)


def test_the_lists_of_twitter2017_beside_it_are_not_taken(tmp_path):
    write_raw(tmp_path / "raw")
    for part in ("train", "dev", "test"):
        write_list(tmp_path / "raw" / "absa_data" / "twitter" / f"{part}.tsv", [(1, 0, "z.jpg", "$T$", "x")])
    made = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert made.counts["train"] == 6
    for part in ("train", "dev", "test"):
        os.replace(
            tmp_path / "raw" / "absa_data" / "twitter2015" / f"{part}.tsv",
            tmp_path / "raw" / "absa_data" / f"{part}.tsv",
        )
    with pytest.raises(ValueError, match="more than one folder"):
        get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)


@official
@pytest.mark.slow  # all of the official lists
def test_the_official_lists_pass_every_check(tmp_path):
    (tmp_path / "raw" / "twitter2015_images").mkdir(parents=True)
    (tmp_path / "raw" / "lists").symlink_to(LISTS)
    names = {row["picture"] for part in ("train", "dev", "test") for row in parse(LISTS / f"{part}.tsv")}
    for i, name in enumerate(sorted(names)):
        Image.new("RGB", (2, 2), (i % 256, i // 256, 0)).save(tmp_path / "raw" / "twitter2015_images" / name, "png")
    made = get("twitter2015").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert made.counts == {"train": 3179, "val": 1122, "test": 1037}
    assert [c for c in made.checks if not c.ok] == []
    assert {c.item: c.found for c in made.checks}["train: negative"] == "368"
    reader = Text(cleaning="letters", words=50)
    rows = manifest(made.out)
    assert all(len(reader._cleaned(row["text"])) >= 1 for row in rows)
    assert max(len(reader._cleaned(row["text"])) for row in rows) == 32
    assert "$T$" not in "".join(row["text"] for row in rows)
