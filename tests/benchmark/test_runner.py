from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from grids import Named, grid
from rich.console import Console

from counterpoise.benchmark.display import clock
from counterpoise.benchmark.runner import run, threads_per_run
from counterpoise.metrics.result import finished

WRITE = "import sys, os, pathlib, json; d = pathlib.Path(sys.argv[1]); d.mkdir(parents=True, exist_ok=True); "
DONE = "(d / 'result.json').write_text(json.dumps({'threads': os.environ['OMP_NUM_THREADS']}))"


def python(code: str):
    return lambda config, directory: [sys.executable, "-S", "-c", WRITE + code, directory, config.method, config.seed]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_runs_the_missing_ones_only(tmp_path: Path) -> None:
    configs = grid(["A", "B"], [0, 1])
    (tmp_path / configs[0].id).mkdir()
    (tmp_path / configs[0].id / "result.json").write_text("{}")
    console = quiet()
    outcome = run(configs, python(DONE), tmp_path, jobs=2, console=console)
    assert outcome.skipped == [configs[0].id]
    assert sorted(outcome.finished) == sorted(config.id for config in configs[1:])
    assert (tmp_path / configs[0].id / "result.json").read_text() == "{}"
    assert outcome.exit_code == 0
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 run(s) already done, 3 to go." in shown
    assert "[3/3]" in shown
    assert "B, seed 1 finished in" in shown
    assert "\x1b" not in shown
    again = run(configs, python("raise SystemExit(9)"), tmp_path, console=quiet())
    assert len(again.skipped) == 4
    assert again.message() == "Runs: 4 already done."


def test_a_failing_run_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    configs = grid(["Bad", "Good"], [0])
    code = "print('reading'); assert sys.argv[2] != 'Bad', 'no such file: x.wav'; " + DONE
    outcome = run(configs, python(code), tmp_path, console=quiet())
    assert outcome.finished == [configs[1].id]
    failure = outcome.failed[configs[0].id]
    assert "exit status 1" in failure.reason
    assert failure.tail.endswith("AssertionError: no such file: x.wav")
    assert "reading" in failure.log.read_text()
    assert outcome.exit_code == 1
    assert f"{configs[0].id} failed with exit status 1" in outcome.message()
    assert "    AssertionError: no such file: x.wav" in outcome.message()


def test_a_run_without_result_or_killed_is_a_failure(tmp_path: Path) -> None:
    configs = grid(["Silent", "Killed", "Absent"], [0])
    codes = {"Silent": "pass", "Killed": "os.kill(os.getpid(), 9)"}

    def command(config: Named, directory: Path) -> list[object]:
        return python(codes[config.method])(config, directory) if config.method in codes else ["/no/such/program"]

    outcome = run(configs, command, tmp_path, console=quiet())  # type: ignore[arg-type]
    reasons = {config.method: outcome.failed[config.id].reason for config in configs}
    assert reasons["Silent"] == "ended without result.json"
    assert reasons["Killed"] == "was killed by SIGKILL"
    assert "could not be started" in reasons["Absent"]


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    code = (
        "n = d / 'epochs'; done = len(n.read_text()) if n.exists() else 0; n.write_text('x' * (done + 1)); "
        "print('epoch', done); os.kill(os.getpid(), 9) if done < 1 else None; " + DONE
    )
    configs = grid(["A"], [0])
    assert run(configs, python(code), tmp_path, console=quiet()).exit_code == 1
    assert run(configs, python(code), tmp_path, console=quiet()).exit_code == 0
    assert (tmp_path / configs[0].id / "epochs").read_text() == "xx"
    log = (tmp_path / "logs" / f"{configs[0].id}.log").read_text()
    assert "epoch 0" in log
    assert "epoch 1" in log


def test_at_most_jobs_at_a_time_and_really_parallel(tmp_path: Path) -> None:
    """Each run waits until two are there, and notes how many it sees."""
    code = (
        "import time; here = d.parent / 'here'; here.mkdir(exist_ok=True); (here / d.name).touch()\n"
        "limit = time.monotonic() + 20\n"
        "while len(list(here.iterdir())) < 2 and time.monotonic() < limit: time.sleep(0.01)\n"
        "time.sleep(0.2); (d / 'seen').write_text(str(len(list(here.iterdir()))))\n"
        "time.sleep(0.2); (here / d.name).unlink(missing_ok=True)\n" + DONE
    )
    configs = grid(["A", "B"], [0, 1])
    assert run(configs, python(code), tmp_path, jobs=2, console=quiet()).exit_code == 0
    assert [(tmp_path / config.id / "seen").read_text() for config in configs] == ["2"] * 4


def test_threads_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    configs = grid(["A"], [0])
    run(configs, python(DONE), tmp_path, jobs=2, console=quiet())
    assert f'"{threads_per_run(2)}"' in (tmp_path / configs[0].id / "result.json").read_text()
    assert threads_per_run(10_000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run(configs, python(DONE), tmp_path / "own", jobs=2, console=quiet())
    assert '"7"' in (tmp_path / "own" / configs[0].id / "result.json").read_text()
    run(configs, python(DONE), tmp_path / "said", jobs=2, threads=3, console=quiet())
    assert '"3"' in (tmp_path / "said" / configs[0].id / "result.json").read_text()


SLOW = """
import os, pathlib, sys, time
d = pathlib.Path(sys.argv[1]); d.mkdir(parents=True, exist_ok=True)
(d / "pid").write_text(str(os.getpid())); (d / "pid").rename(d / "started")
try:
    time.sleep(60)
except KeyboardInterrupt:
    if sys.argv[2] == "Stubborn":
        (d / "heard").touch(); time.sleep(60)
    (d / "checkpoint").touch()
    raise SystemExit(130)
"""

BENCHMARK = """
import io, sys, pathlib
from rich.console import Console
from types import SimpleNamespace
from counterpoise.benchmark import run
configs = [SimpleNamespace(method=sys.argv[3], id=f"{sys.argv[3]}-s{i}", title=f"seed {i}") for i in range(4)]
script, forked = sys.argv[2], sys.argv[4] == "forked"
how = ["-m", pathlib.Path(script).stem] if forked else ["-S", script]
command = lambda config, directory: [sys.executable, *how, directory, config.method]
options = {"preload": ["json"]} if forked else {}
outcome = run(configs, command, sys.argv[1], jobs=2, console=Console(file=io.StringIO()), patience=30, **options)
print(len(outcome.stopped), len(outcome.waiting), len(outcome.failed)); sys.exit(outcome.exit_code)
"""


HOW = pytest.mark.parametrize("how", [pytest.param("spawned", marks=pytest.mark.slow), "forked"])


def start(tmp_path: Path, method: str, how: str) -> tuple[subprocess.Popen[str], list[Path]]:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    arguments = [sys.executable, "-c", BENCHMARK, str(tmp_path / "runs"), str(script), method, how]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
    directories = [tmp_path / "runs" / config.id for config in grid([method], range(2))]
    wait_for(*(d / "started" for d in directories))
    return process, directories


def wait_for(*paths: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("which", "how"),
    [
        pytest.param(signal.SIGINT, "spawned", marks=pytest.mark.slow),
        (signal.SIGTERM, "forked"),
        pytest.param(signal.SIGINT, "forked", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "spawned", marks=pytest.mark.slow),
    ],
)
def test_an_interruption_lets_the_runs_write_their_checkpoint(tmp_path: Path, which: signal.Signals, how: str) -> None:
    process, directories = start(tmp_path, "Polite", how)
    process.send_signal(which)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.split() == ["2", "2", "0"]
    assert all((d / "checkpoint").exists() for d in directories)


@HOW
def test_a_second_interruption_kills(tmp_path: Path, how: str) -> None:
    process, directories = start(tmp_path, "Stubborn", how)
    process.send_signal(signal.SIGINT)
    wait_for(*(d / "heard" for d in directories))
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.split() == ["2", "2", "0"]
    assert not any((d / "checkpoint").exists() for d in directories)


@HOW
def test_a_run_that_outlived_its_benchmark_is_not_started_twice(tmp_path: Path, how: str) -> None:
    process, directories = start(tmp_path, "Orphan", how)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()  # not read to its end: the server of the forks has it open as long as they live
    configs = grid(["Orphan"], [0])
    outcome = run(configs, python(DONE), tmp_path / "runs", console=quiet())
    assert outcome.failed[configs[0].id].reason == "is being run by another process"
    assert not finished(directories[0])
    for directory in directories:
        os.kill(int((directory / "started").read_text()), signal.SIGKILL)


MODULE = """
import json, os, pathlib, sys
directory, method = pathlib.Path(sys.argv[1]), sys.argv[2]
print("preloaded" if "colorsys" in sys.modules else "bare", flush=True)
if method == "Killed":
    os.kill(os.getpid(), 9)
if method == "Bad":
    raise ValueError("no such file: x.wav")
if method == "Empty":
    sys.exit(0)
directory.mkdir(parents=True)
(directory / "result.json").write_text(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "name": __name__}))
"""


def test_forks_have_logs_and_exit_statuses_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forked_run.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    configs = {config.method: config for config in grid(["Good", "Killed", "Bad", "Empty"], [0])}

    def command(config: Named, directory: Path) -> list[str]:
        return [sys.executable, "-m", "forked_run", str(directory), config.method]

    outcome = run(list(configs.values()), command, tmp_path, jobs=2, console=quiet(), preload=["colorsys"])
    assert outcome.finished == [configs["Good"].id]
    assert (tmp_path / configs["Good"].id / "result.json").read_text() == '{"threads": "3", "name": "__main__"}'
    failed = {method: outcome.failed[configs[method].id] for method in ("Killed", "Bad", "Empty")}
    assert failed["Killed"].reason == "was killed by SIGKILL"
    assert failed["Empty"].reason == "ended without result.json"
    assert failed["Bad"].reason == "failed with exit status 1"
    assert failed["Bad"].tail.endswith("ValueError: no such file: x.wav")
    assert all("preloaded" in failure.log.read_text() for failure in failed.values())


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs must be a whole number >= 1; got 0"):
        run([], python(DONE), tmp_path, jobs=0)


def test_clock() -> None:
    assert [clock(4.4), clock(200), clock(7500)] == ["4 s", "3 min 20 s", "2 h 5 min"]
