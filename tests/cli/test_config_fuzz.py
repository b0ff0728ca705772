"""Damaged configurations end in a message that says what is wrong, never in a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from conftest import Run
from counterpoise.engine import Trainer

BASE = """\
data:
  class_path: Table
  init_args:
    path: texts.csv
    val: 0.2
    modalities:
      said: {class_path: Text, init_args: {length: 8}}
      seen: text
method:
  class_path: IGM
  init_args: {tau: 0.4, order: [said, seen]}
fusion: {class_path: Late, init_args: {rule: mean}}
encoders:
  said: {class_path: TextBag, init_args: {dim: 8}}
  seen:
    class_path: Frozen
    init_args:
      encoder: {class_path: TextBag, init_args: {dim: 8}}
optimizer: {class_path: SGD, init_args: {lr: 0.05}}
schedule: Cosine
metrics: [accuracy, map]
monitor: accuracy
epochs: 1
batch_size: 8
sam: 0.0
clip_norm: null
pool: false
run_dir: null
progress: false
"""
VALUES = (
    "null", "[]", "{}", "x", "-1", "true", "3.5", "a.b", "[1, x]", "{a: 1}", "{class_path: 3}", "&a",
    "{init_args: 3}", "{class_path: Late, init_args: x}", "2020-01-01", ".nan", "!!binary aGk=", "''", "? [a]", "*a",
    "{class_path: Frozen, init_args: {encoder: 3}}", "[[[]]]", "1e999", "{class_path: os.getcwd}",
)  # fmt: skip


def flipped(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chr(ord(text[at]) ^ 1 << chance.randrange(7)) + text[at + 1 :]


def cut(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    del lines[chance.randrange(len(lines))]
    return "\n".join(lines)


def doubled(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    return "\n".join([*lines[: at + 1], *lines[at:]])


def exchanged(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    one, other = chance.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def shortened(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text))]


def retyped(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    at = chance.choice([i for i, line in enumerate(lines) if ":" in line])
    name = lines[at][: lines[at].index(":")]
    return "\n".join([*lines[:at], f"{name}: {chance.choice(VALUES)}", *lines[at + 1 :]])


def retyped_inside(text: str, chance: random.Random) -> str:
    words = text.replace(",", " , ").replace("}", " } ").split(" ")
    places = [i for i, word in enumerate(words) if i and words[i - 1].endswith(":") and "\n" not in word]
    words[chance.choice(places)] = chance.choice(VALUES)
    return " ".join(words)


MUTATIONS = (flipped, cut, doubled, exchanged, shortened, retyped, retyped_inside)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_no_traceback(
    mutation: Callable[[str, random.Random], str], run: Run, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt("It would train.")

    monkeypatch.setattr(Trainer, "run", stop)
    texts.rename("texts.csv")
    chance = random.Random(mutation.__name__)
    codes = set()
    for i in range(40):
        text = mutation(BASE, chance)
        if i % 4 == 3:
            text = mutation(text, chance)
        Path("c.yaml").write_text(text, encoding="utf-8")
        for command in (["fit"], ["data", "check"])[: 1 + (i % 8 == 0)]:
            done = run(*command, "--config", "c.yaml")
            codes.add(done.code)
            said = done.err.removeprefix("counterpoise: warning: ")
            assert done.code in (0, 1, 2, 130), text
            assert done.code == 0 or (said.startswith("counterpoise: ") or said != done.err), (text, done)
            assert "COUNTERPOISE_TRACEBACK" not in done.err or done.code == 1
    assert codes & {1, 2}


@pytest.mark.slow
def test_the_configuration_itself_trains(run: Run, texts: Path) -> None:
    texts.rename("texts.csv")
    Path("c.yaml").write_text(BASE)
    done = run("fit", "--config", "c.yaml")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "line",
    ["encoders: x", "encoders: [a]", "encoders: {said: 3}", "encoders: {said: {class_path: Frozen, init_args: [1]}}",
     "encoders: {said: {class_path: 3}}", "data: 3", "data: [x.csv]", "data: {class_path: [a]}", "method: {a: b}",
     "data: {class_path: Table, init_args: 3}", "fusion: [Late]", "optimizer: 3", "schedule: {init_args: 3}",
     "metrics: 3", "epochs: [1]", "seed: 2020-01-01", "run_dir: {a: b}", "run_dir: [a]", "label: [x]",
     "encoder_weights: {said: 3}"],
)  # fmt: skip
def test_odd_values(line: str, run: Run, texts: Path) -> None:
    name = line.split(":")[0]
    whole = {"data": "data: texts.csv", "method": "method: Joint", "epochs": "epochs: 1", "batch_size": "batch_size: 8"}
    texts.rename("texts.csv")
    Path("c.yaml").write_text("\n".join({**whole, "run_dir": "run_dir: null", name: line}.values()))
    done = run("fit", "--config", "c.yaml")
    assert done.code in (1, 2), done
    assert done.err.startswith("counterpoise: ")
