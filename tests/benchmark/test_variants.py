"""Variants of a method are rows of their own in a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from counterpoise.benchmark.plan import base, plan
from counterpoise.cli import benchmark, fit
from counterpoise.engine import SGD
from counterpoise.recipe.messages import UsageError
from counterpoise.report.collect import collect

DIGITS = ["--data", "digits", "--data.size", "120", "--epochs", "1", "--accelerator", "cpu", "--progress", "false"]
SETTINGS = """
Joint: {optimizer.lr: 0.02}
joint+sam: {method: joint, sam: 0.05}
Ears: {method: Unimodal, method.modality: audio}
Alone+SAM: {method: Unimodal, sam: 0.1}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    return path


def test_a_variant_has_its_method_its_options_and_its_label(settings: Path) -> None:
    found = benchmark._settings(str(settings))
    names = benchmark._names("settings", found)
    assert names == ["Joint", "joint+sam", "Ears", "Alone+SAM"]
    assert benchmark._names("JOINT,ears", found) == ["Joint", "Ears"]
    assert benchmark._names("all", found)[-3:] == ["joint+sam", "Ears", "Alone+SAM"]
    rows = benchmark.rows(names, found, ["audio", "image"])
    planned = plan(base(DIGITS, "Joint", "test"), rows, [0, 1])
    assert list(planned) == ["Joint", "joint+sam", "Ears", "Alone+SAM(audio)", "Alone+SAM(image)"]
    options = [recipes[0].options for recipes in planned.values()]
    assert [o.label for o in options] == [None, "joint+sam", "Ears", "Alone+SAM(audio)", "Alone+SAM(image)"]
    methods = [recipes[1].method for recipes in planned.values()]
    assert methods == ["Joint", "Joint", "Unimodal", "Unimodal", "Unimodal"]
    assert [o.sam for o in options] == [0, 0.05, 0, 0.1, 0.1]
    assert [o.optimizer.init_args.lr for o in options[:2]] == [0.02, SGD().lr]
    assert [o.method.init_args.modality for o in options[2:]] == ["audio", "audio", "image"]


def test_unknown_methods_of_variants_and_labels_for_all_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("Mine: {method: Jont}")
    with pytest.raises(UsageError, match="Did you mean 'Joint'"):
        benchmark._settings(str(path))
    path.write_text("Mine: {sam: 0.1}")
    with pytest.raises(UsageError, match="Unknown method 'Mine'"):
        benchmark._settings(str(path))
    path.write_text("Joint: {method: IGM}")
    with pytest.raises(UsageError, match="Joint is a method itself; give the row of IGM another name"):
        benchmark._settings(str(path))
    with pytest.raises(UsageError, match="--settings names variants"):
        base([*DIGITS, "--label", "x"], "Joint", "test")


def test_the_label_is_in_the_result_and_in_the_report(tmp_path: Path) -> None:
    for name, extra in {"a": [], "b": ["--label", "Joint+SAM", "--sam", "0.05"]}.items():
        fit.main([*DIGITS, "--method", "Joint", "--run_dir", str(tmp_path / name), *extra])
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in "ab"]
    assert [(r["method"], r["label"]) for r in results] == [("Joint", "Joint"), ("Joint", "Joint+SAM")]
    assert [run.label for run in collect(tmp_path)] == ["Joint", "Joint+SAM"]
    (tmp_path / "b" / "result.json").unlink()
    assert [run.label for run in collect(tmp_path)] == ["Joint", "Joint+SAM"]
