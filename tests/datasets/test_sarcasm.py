"""The multimodal sarcasm set: generated folders of its authors' layout, their own lists where they are."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise.data import Text
from counterpoise.datasets import checks, files, get
from counterpoise.datasets.sarcasm import GIVE_AWAY, gives_away, parse, parse_json

DATA = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[3] / "shared" / "data"))
LISTS = DATA / "splits" / "sarcasm" / "headacheboy"
TWEETS = DATA / "sarcasm_text_attr" / "sarcasm.csv"
official = pytest.mark.skipif(not LISTS.is_dir(), reason=f"needs the authors' lists in {LISTS} (COUNTERPOISE_DATA)")

TEXTS = ["what a lovely day - it 's raining # joy", "i love monday mornings !", "<user> thanks for nothing"]


def write_lists(folder: Path, per_part: int = 6) -> list[str]:
    """Lists as the authors write them, with give-away words in the training list; the ids of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = []
    for p, name in enumerate(["train.txt", "valid2.txt", "test2.txt"]):
        rows = []
        for i in range(per_part):
            ids.append(f"{p}00{i}")
            label = i % 2
            rows.append([ids[-1], TEXTS[i % 3], label] if p == 0 else [ids[-1], TEXTS[i % 3], 1 - label, label])
        if p == 0:
            rows.insert(2, ["777", "oh the irony of it", 1])
            rows.append(["778", "see <url> …\u2028yes", 0])
        (folder / name).write_bytes("".join(f"{row!r}\r\n" for row in rows).encode())
    return ids


def write_raw(root: Path, pictures: str = "dataset_image") -> list[str]:
    ids = write_lists(root / "text")
    (root / pictures).mkdir()
    for i, name in enumerate(ids):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / pictures / f"{name}.jpg")
    return ids


def manifest(out: Path, name: str = "manifest") -> list[dict[str, str]]:
    return files.read_table(out / f"{name}.csv")


def test_lists_of_python_literals_and_the_word_filter(tmp_path):
    ids = write_raw(tmp_path / "raw")
    made = get("sarcasm").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    rows = manifest(made.out)
    assert [row["id"] for row in rows] == ids
    assert made.counts == {"train": 6, "val": 6, "test": 6}
    # The last entry of a line, not the hashtag's.
    assert [row["label"] for row in rows] == ["literal", "sarcastic"] * 9
    assert rows[0]["text"] == TEXTS[0]
    assert "training tweets with a give-away word, not used: 2 of 8" in made.card.read_text()
    expected = {c.item: c.expected for c in made.checks}
    assert [expected[f"{p}: samples in the list"] for p in ("train", "val", "test")] == ["19816", "2410", "2409"]


def test_json_of_the_released_code_gives_the_same(tmp_path):
    write_raw(tmp_path / "raw")
    lists = get("sarcasm").scan(tmp_path / "raw")
    (tmp_path / "json").mkdir()
    os.symlink(tmp_path / "raw" / "dataset_image", tmp_path / "json" / "images")
    for part, name in zip(("train", "val", "test"), ("train", "valid", "test"), strict=True):
        objects = [
            {"image": f"some/where/{i}.jpg", "text": text, "label": int(label)}
            for i, text, label in parse(lists.lists[part])
        ]
        (tmp_path / "json" / f"{name}.json").write_text(json.dumps(objects))
    first = get("sarcasm").prepare(tmp_path / "raw", tmp_path / "a", progress=False)
    second = get("sarcasm").prepare(tmp_path / "json", tmp_path / "b", progress=False)
    assert manifest(first.out) == manifest(second.out)
    assert [(c.item, c.found) for c in first.checks] == [(c.item, c.found) for c in second.checks]


def test_missing_pictures_repeated_ids_and_unknown_labels_are_counted(tmp_path):
    ids = write_raw(tmp_path / "raw")
    (tmp_path / "raw" / "dataset_image" / f"{ids[7]}.jpg").unlink()
    path = tmp_path / "raw" / "text" / "test2.txt"
    path.write_text(f"['{ids[12]}', 'a b', 0, 1]\n['{ids[12]}', 'a b', 0, 1]\n['{ids[13]}', 'c', 0, 2]\n")
    made = get("sarcasm").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    reasons = {(row["id"], row["reason"].partition(":")[0]) for row in manifest(made.out, "excluded")}
    assert reasons == {(ids[7], "no picture"), (ids[12], "id listed twice"), (ids[13], "unknown label")}
    assert made.counts == {"train": 6, "val": 5, "test": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("['1', 'a', 1", r"line 2: no Python list"),
        ("('1', 'a', 1)", r"line 2: a list \[id, text, label\]"),
        ("['1', 'a']", r"line 2: a list \[id, text, label\]"),
        ("[1, 'a', 1]", r"line 2: a list \[id, text, label\]"),
        ("__import__('os').getcwd()", r"line 2: no Python list"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, message):
    path = tmp_path / "train.txt"
    path.write_text(f"['0', 'x', 0]\n{line}\n")
    with pytest.raises(ValueError, match=message):
        parse(path)


def test_wrong_json_and_encoding_are_named(tmp_path):
    path = tmp_path / "train.json"
    for content, message in [("[{", "no JSON"), ("{}", "got dict"), ('[{"image": "a"}]', "object 1: must have image")]:
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            parse_json(path)
    path.write_bytes("['1', 'é', 0]".encode("latin-1"))
    with pytest.raises(ValueError, match="line 1: byte 0xe9 is not UTF-8"):
        parse(path)


def test_nothing_there_says_where_to_get_it(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train.txt, valid2.txt, test2.txt(.|\n)*headacheboy"):
        get("sarcasm").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    write_lists(tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="folder dataset_image or images below"):
        get("sarcasm").prepare(tmp_path / "raw", tmp_path / "out", progress=False)


def test_the_filter_takes_whole_words():
    assert len(GIVE_AWAY) == 11
    assert gives_away("so ironic !")
    assert not gives_away("ironically , # sarcasmo jokester <url>x")


@official
def test_the_official_lists_give_the_published_numbers():
    dataset = get("sarcasm")
    names = {"train": "train.txt", "val": "valid2.txt", "test": "test2.txt"}
    from counterpoise.datasets.text_image import Posts

    lists = {part: LISTS / name for part, name in names.items()}
    raw = Posts(lists, {}, {part: dataset.entries(path, part) for part, path in lists.items()})
    assert [len(raw.entries[part]) for part in names] == [29040, 2410, 2409]
    rows = [{"id": r.id, "label": r.label, "split": r.part} for r in dataset.rows(raw, "official")]
    assert all(c.ok for c in checks.counts(dataset.published("official"), rows, []))
    assert all(c.ok for c in checks.leaks(rows, None))
    assert dataset.checksums(raw) == dataset.lists
    assert dataset.notes(raw, "official")[0].endswith("9224 of 29040")


@pytest.mark.skipif(not TWEETS.is_file(), reason=f"needs {TWEETS} (COUNTERPOISE_DATA)")
def test_real_tweets_are_cleaned_as_published():
    reader = get("sarcasm").readers()["text"]
    plain = Text(cleaning=reader.cleaning, words=reader.words, tokenizer="bert-base-uncased")
    with TWEETS.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) == 24635
    for text in texts[::7]:
        words = plain._cleaned(text)
        wanted = re.sub("[,.'!?\"()*#:;~]", "", text.lower()).replace("-", " ").replace("/", " ").split()
        assert words == wanted[:50]
