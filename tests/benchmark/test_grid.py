from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from counterpoise.benchmark.grid import RunConfig, finished, grid, missing


def test_every_combination_once_and_seeds_slowest() -> None:
    configs = grid(["Joint", "IGM"], [0, 1, 2], [{"lr": 0.1}, {"lr": 0.2}])
    assert len(configs) == len({config.id for config in configs}) == 12
    assert [config.seed for config in configs] == [0] * 4 + [1] * 4 + [2] * 4


def test_variants_belong_to_their_method_and_win() -> None:
    configs = grid({"Joint": [{}], "OGM": [{"alpha": 0.1}, {"alpha": 0.5, "lr": 3}]}, [0], [{"lr": 1}])
    assert [(c.method, dict(c.settings)) for c in configs] == [
        ("Joint", {"lr": 1}),
        ("OGM", {"lr": 1, "alpha": 0.1}),
        ("OGM", {"lr": 3, "alpha": 0.5}),
    ]


def test_id_depends_on_content_only() -> None:
    first = RunConfig("OGM-GE", 3, {"a": 1, "b": {"c": [1, 2], "d": None}})
    again = RunConfig("OGM-GE", 3, {"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert first.id == again.id
    assert first.id.startswith("OGM-GE-s3-")
    others = [RunConfig("OGM-GE", 4, first.settings), RunConfig("OGM GE", 3, first.settings), RunConfig("OGM-GE", 3)]
    assert len({first.id, *(other.id for other in others)}) == 4


def test_id_is_the_same_in_another_process() -> None:
    code = "from counterpoise.benchmark.grid import RunConfig; print(RunConfig('M', 1, {'x': 0.1, 'y': 'é'}).id)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == RunConfig("M", 1, {"y": "é", "x": 0.1}).id


def test_id_is_a_safe_directory_name() -> None:
    assert RunConfig("../my.Method", 0).id.startswith("my-Method-s0-")
    assert "/" not in RunConfig("a/b", 0).id


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_settings_that_have_no_stable_id(value: object) -> None:
    with pytest.raises(ValueError, match="must be plain values"):
        _ = RunConfig("Joint", 0, {"x": value}).id


def test_refuses_nothing_to_do_and_repetitions() -> None:
    with pytest.raises(ValueError, match="at least one method"):
        grid([], [0])
    with pytest.raises(ValueError, match="at least one method"):
        grid(["Joint"], [])
    with pytest.raises(ValueError, match=r"Joint with seed 0 .* occurs 2 times"):
        grid(["Joint"], [0, 0])


def test_finished_means_a_readable_result(tmp_path: Path) -> None:
    configs = grid(["Joint"], range(4))
    for config, content in zip(configs, (json.dumps({"seed": 0}), '{"seed"', "", None), strict=True):
        (tmp_path / config.id).mkdir()
        if content is not None:
            (tmp_path / config.id / "result.json").write_text(content)
    assert finished(tmp_path / configs[0].id)
    assert missing(configs, tmp_path) == configs[1:]
    assert missing(configs, tmp_path / "nowhere") == configs
