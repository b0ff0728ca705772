"""The script for GPUs, on the CPU: it runs to its end, and its checks can fail."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def checks():
    sys.path.insert(0, str(BENCHMARKS))
    yield runpy.run_path(str(BENCHMARKS / "gpu_checks.py"))
    sys.path.remove(str(BENCHMARKS))


def test_a_step_in_float32_is_near_the_one_in_float64(checks):
    make = checks["makers"]()["IGM"]
    assert 0 < checks["error"](make, "cpu", 0.05, double=True) < 1e-4


def test_every_method_is_checked(checks):
    from counterpoise import methods

    for name, make in checks["makers"]().items():
        assert type(make()) is getattr(methods, name)
    assert set(checks["makers"]()) == set(methods.__all__)


def test_a_wrong_gradient_is_seen(checks, monkeypatch):
    from counterpoise.engine import Step

    backward = Step.backward

    def off(self, loss):
        backward(self, loss * 1.01 if loss.dtype == torch.float32 else loss)

    monkeypatch.setattr(Step, "backward", off)
    found = checks["checked"]("cpu", ["Joint"])["Joint"]
    assert "of the largest change, where 0.001 is allowed" in found["step"]
    assert found["resumes_exactly"] == "ok"


@pytest.mark.slow
def test_the_script_runs_on_the_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--quick", "--methods", "Joint,IGM"]
    page = subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, text=True).stdout
    results = json.loads(out.read_text())
    assert set(results["checks"]) == {"Joint", "IGM"}
    assert "All passed." in page
    assert "no time was left" not in page
    assert "failed" not in page
    assert "| bf16, 8 | IGM |" in page
    assert "released: not measured" in page
