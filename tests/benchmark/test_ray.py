"""Runs as tasks of a real Ray on this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from counterpoise.benchmark import on_ray
from counterpoise.benchmark.grid import RunConfig, grid
from counterpoise.benchmark.on_ray import Ray, sees, work
from counterpoise.benchmark.runner import run
from counterpoise.cli.benchmark import PRELOAD, command, plan

FAKE = """
import json, os, pathlib, signal, sys, time
directory, method = pathlib.Path(sys.argv[1]), sys.argv[2]
directory.mkdir(parents=True, exist_ok=True)
tries = len(list(directory.iterdir()))
(directory / f"try{tries}").touch()
print("try", tries, "of", method, flush=True)
if method == "Killed" and tries < 1 or method == "Doomed":
    os.kill(os.getpid(), signal.SIGKILL)
if method == "WorkerKilled" and tries < 1:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
if method == "Bad":
    raise ValueError("no such file: x.wav")
(directory / "result.json").write_text(json.dumps({"threads": os.environ["OMP_NUM_THREADS"], "name": __name__}))
"""


KILLING = """
import os, pathlib, signal, sys, time
from counterpoise.cli import main
from counterpoise.engine.record import RunDirectory
plain = RunDirectory.append
def append(self, record):
    plain(self, record)
    mark = self.path.with_name(self.path.name + ".killed")
    if record["epoch"] == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
RunDirectory.append = append
main(sys.argv[1:])
"""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for several tests, with the modules that they run; a run inside uses it, as any that is there."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        modules(folder, patch, fake_run=FAKE, killing=KILLING)
        with Ray().open(folder, jobs=3, threads=3, preload=()):
            yield


def modules(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    found = os.pathsep.join([str(folder), *(str(Path(p).absolute()) for p in sys.path if p)])
    monkeypatch.setenv("PYTHONPATH", found)


@pytest.mark.usefixtures("started")
def test_killed_runs_are_retried_and_failing_ones_are_not(tmp_path: Path) -> None:
    configs = {config.method: config for config in grid(["Good", "Killed", "WorkerKilled", "Bad", "Doomed"], [0])}

    def fake(config: RunConfig, directory: Path) -> list[str]:
        return [sys.executable, "-m", "fake_run", str(directory), config.method]

    runs = tmp_path / "runs"
    outcome = run(list(configs.values()), fake, runs, jobs=3, threads=3, backend=Ray(), console=quiet())

    def tries(method: str) -> int:
        return len(list((runs / configs[method].id).glob("try*")))

    assert sorted(outcome.finished) == sorted(configs[m].id for m in ("Good", "Killed", "WorkerKilled"))
    assert (runs / configs["Good"].id / "result.json").read_text() == '{"threads": "3", "name": "__main__"}'
    assert [tries(m) for m in configs] == [1, 2, 2, 1, 1 + on_ray.RETRIES]
    bad, doomed = (outcome.failed[configs[m].id] for m in ("Bad", "Doomed"))
    assert bad.reason == "failed with exit status 1"
    assert bad.tail.endswith("ValueError: no such file: x.wav")
    assert doomed.reason == f"was killed by SIGKILL, {1 + on_ray.RETRIES} times"
    assert outcome.exit_code == 1


@pytest.mark.usefixtures("started")
def test_the_same_scores_as_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also with another number of jobs, and when every worker is killed in the second epoch."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    data = ["--data", "digits", "--data.size", "120", "--batch_size", "16", "--accelerator", "cpu"]
    configs = plan(["Joint", "MLA"], [0], [*data, "--epochs", "2", "--progress", "false"], {})

    def killing(config: RunConfig, directory: Path) -> list[str]:
        python, how, _, *rest = command(config, directory)
        return [python, how, "killing", *rest]

    local = run(configs, command, tmp_path / "local", jobs=1, threads=1, console=quiet(), preload=PRELOAD)
    on_ray = run(configs, killing, tmp_path / "ray", jobs=2, threads=1, backend=Ray(), console=quiet())
    assert (local.exit_code, on_ray.exit_code) == (0, 0), on_ray.message()
    assert len(list((tmp_path / "ray").glob("*.killed"))) == 2
    for config in configs:
        one, other = (
            json.loads((tmp_path / where / config.id / "result.json").read_text()) for where in ("local", "ray")
        )
        measured = {"seconds": None, "cost": None}
        assert {**one, **measured} == {**other, **measured}


SLOW = """
import pathlib, sys, time
directory = pathlib.Path(sys.argv[1]); directory.mkdir(parents=True)
(directory / "started").touch()
try:
    time.sleep(90)
except KeyboardInterrupt:
    if sys.argv[2] == "Stubborn":
        (directory / "heard").touch(); time.sleep(90)
    time.sleep(0.5); (directory / "checkpoint").touch()
    raise SystemExit(130)
"""

BENCHMARK = """
import io, sys
from rich.console import Console
from counterpoise.benchmark import grid, run
from counterpoise.benchmark.on_ray import Ray
configs = grid([sys.argv[2]], range(3))
command = lambda config, directory: [sys.executable, "-m", "slow_run", directory, config.method]
outcome = run(configs, command, sys.argv[1], jobs=2, threads=1, backend=Ray(), console=Console(file=io.StringIO()))
print(len(outcome.stopped), len(outcome.waiting), len(outcome.failed)); sys.exit(outcome.exit_code)
"""


@pytest.mark.slow  # on a busy machine Ray may take more than a minute to pass an interruption on
@pytest.mark.parametrize("method", ["Polite", "Stubborn"])
def test_an_interruption_reaches_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    modules(tmp_path, monkeypatch, slow_run=SLOW)
    arguments = [sys.executable, "-c", BENCHMARK, str(tmp_path / "runs"), method]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    directories = [tmp_path / "runs" / config.id for config in grid([method], range(2))]
    wait_for(*(d / "started" for d in directories))
    process.send_signal(signal.SIGINT)
    if method == "Stubborn":
        wait_for(*(d / "heard" for d in directories))
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.split() == ["2", "1", "0"]
    assert [(d / "checkpoint").exists() for d in directories] == [method == "Polite"] * 2


def wait_for(*paths: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.02)


def test_what_a_worker_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray: the function that runs in its workers."""
    monkeypatch.setattr(on_ray, "LEFT_BEHIND", 0.1)
    log = tmp_path / "a.log"
    assert work(["", "-S", "-c", "print('here'); raise SystemExit(3)"], str(log), 1, str(tmp_path)) == (
        "failed with exit status 3"
    )
    assert log.read_text().endswith("here\n")
    with log.open("ab") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        assert work(["", "-S", "-c", ""], str(log), 1, str(tmp_path)).startswith("is being run by another process (on ")
    assert work(["/no/such/program"], str(log), 1, str(tmp_path)).startswith("could not be started: ")
    assert work([""], str(tmp_path / "no" / "a.log"), 1, str(tmp_path)).startswith("could not be started: ")
    with pytest.raises(on_ray.RunKilled, match="was killed by SIGKILL"):
        work(["", "-S", "-c", "import os; os.kill(os.getpid(), 9)"], str(log), 1, str(tmp_path))


def test_sees(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    assert sees(str(tmp_path), str(tmp_path / "mark")) == ""
    assert sees(str(tmp_path), str(tmp_path / "other")) != ""
    assert sees(str(tmp_path / "other"), str(tmp_path / "mark")) != ""


def test_an_address_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"--address {address}: no Ray cluster could be reached"):
        Ray(address)._connect(None, 1)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_cluster_of_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, monkeypatch, fake_run=FAKE)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    arguments = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        configs = grid(["Good", "Killed"], [0, 1])

        def fake(config: RunConfig, directory: Path) -> list[str]:
            return [sys.executable, "-m", "fake_run", str(directory), config.method]

        outcome = run(configs, fake, tmp_path / "runs", jobs=2, threads=1, backend=Ray(address), console=quiet())
        assert len(outcome.finished) == 4
        with pytest.raises(ValueError, match="No machine of the Ray cluster has 2 CPUs and 0 GPUs"):
            run(grid(["Good"], [2]), fake, tmp_path / "runs", threads=2, backend=Ray(address), console=quiet())
        monkeypatch.setattr(on_ray, "sees", lambda folder, mark: "elsewhere")
        with pytest.raises(ValueError, match=r"elsewhere: no .*/runs, or not the working directory"):
            run(grid(["Good"], [2]), fake, tmp_path / "runs", threads=1, backend=Ray(address), console=quiet())


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--backend ray needs Ray: pip install 'counterpoise\[ray\]'"):
        Ray()
