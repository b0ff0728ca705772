"""``result.json``: read in one way by everybody, and never as something else than was written."""

from __future__ import annotations

import json

import pytest

from counterpoise.engine import RunDirectory, RunDirectoryError
from counterpoise.metrics.result import finished, read_result, result_text
from counterpoise.report.collect import collect
from counterpoise.report.page import write_report

RESULT = {
    "method": "Joint", "label": "Joint", "seed": 0, "data": "töne", "modalities": ["a", "b"], "classes": ["x", "y"],
    "fusion": "Concat", "seconds": 1.25, "cost": {"forward": 1.9}, "epochs": 2, "best_epoch": 1, "monitor": "accuracy",
    "val": {"fused/accuracy": 0.8, "a/accuracy": 0.7, "fused/loss": 1 / 3}, "test": {"fused/accuracy": 0.75},
    "subsets": {"a": {"accuracy": 0.7}, "a+b": {"accuracy": 0.75}},
}  # fmt: skip


def run_in(directory, text):
    """A run of ours whose ``result.json`` holds this."""
    directory.mkdir()
    (directory / "environment.json").write_text("{}")
    (directory / "config.yaml").write_text("seed: 0\nmethod: {class_path: Joint}\n")
    (directory / "metrics.jsonl").write_text('{"epoch": 1, "val/fused/accuracy": 0.5}\n')
    if isinstance(text, bytes):
        (directory / "result.json").write_bytes(text)
    else:
        (directory / "result.json").write_text(text, encoding="utf-8")
    return directory


def test_what_is_written_is_read(tmp_path):
    for extra in (
        {},
        {"test": None, "best_epoch": None},
        {"val": {"fused/loss": None}},
        {"notes": [1, {"a": "ü"}]},
    ):
        path = tmp_path / str(len(str(extra)))
        assert read_result(run_in(path, result_text({**RESULT, **extra}))) == {**RESULT, **extra}
    endless = {**RESULT, "val": {"fused/loss": float("inf")}}  # no file holds numbers that JSON has not
    assert read_result(run_in(tmp_path / "inf", result_text(endless))) == {**RESULT, "val": {"fused/loss": None}}
    assert read_result(run_in(tmp_path / "old", json.dumps(RESULT))) == RESULT  # without a digest
    assert read_result(tmp_path) is None


CHANGED = {
    "empty": "",
    "blank": "\n \n",
    "zeros": "\0" * 300,
    "cut": result_text(RESULT)[:-200],
    "one digit": result_text(RESULT).replace("0.75", "0.95"),
    "another name": result_text(RESULT).replace('"label": "Joint"', '"label": "IGM"'),
    "no text": b"\xff\xfe" + result_text(RESULT).encode(),
    "a list": "[1, 2]",
    "a number": "3",
    "null": "null",
    "nested": "[" * 100_000,
    "seed": json.dumps({**RESULT, "seed": "0"}),
    "truth": json.dumps({**RESULT, "epochs": True}),
    "method": json.dumps({**RESULT, "method": ["Joint"]}),
    "modalities": json.dumps({**RESULT, "modalities": [1, 2]}),
    "classes": json.dumps({**RESULT, "classes": "xy"}),
    "val": json.dumps({**RESULT, "val": [0.8]}),
    "score": json.dumps({**RESULT, "test": {"fused/accuracy": "0.75"}}),
    "subsets": json.dumps({**RESULT, "subsets": {"a": 0.7}}),
    "subset score": json.dumps({**RESULT, "subsets": {"a": {"accuracy": {}}}}),
    "seconds": json.dumps({**RESULT, "seconds": "fast"}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_damaged_one_is_no_result_for_fit_benchmark_and_report_alike(tmp_path, name):
    path = run_in(tmp_path / "run", CHANGED[name])
    with pytest.raises(ValueError, match=r"\w") as reason:
        read_result(path)
    assert not finished(path)
    (run,) = collect(tmp_path)
    assert not run.finished
    assert run.problems[0].startswith(f"result.json cannot be read: {str(reason.value).splitlines()[0]}")
    assert "result.json cannot be read" in write_report([path], tmp_path / "report.html").read_text()
    with pytest.raises(RunDirectoryError, match=r"unfinished run .result.json is damaged: .*Pass --resume"):
        RunDirectory(path)
    with pytest.warns(UserWarning, match=r"result.json is damaged: .* from its checkpoints and writes it again"):
        directory = RunDirectory(path, resume=True)
    directory.write_result(RESULT)
    directory.release()
    assert read_result(path) == RESULT
    assert finished(path)
    with pytest.raises(RunDirectoryError, match="holds a finished run"):
        RunDirectory(path, resume=True)


def test_one_that_cannot_be_opened_is_named(tmp_path):
    path = run_in(tmp_path / "run", "")
    (path / "result.json").unlink()
    (path / "result.json").mkdir()
    assert not finished(path)
    with pytest.raises(RunDirectoryError, match=r"result.json cannot be read: Is a directory"):
        RunDirectory(path, resume=True)
