"""Runs as tasks of a real Ray on this machine."""

from __future__ import annotations

import contextlib
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
from grids import Named, grid
from rich.console import Console

from counterpoise.benchmark import on_ray
from counterpoise.benchmark.backends import End, Order, opened
from counterpoise.benchmark.on_ray import Ray, sees, work
from counterpoise.benchmark.plan import PRELOAD, Row, base, command, plan
from counterpoise.benchmark.runner import run
from counterpoise.recipe.recipe import Recipe

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


SLOW = """
import pathlib, sys, time
directory = pathlib.Path(sys.argv[1]); directory.mkdir(parents=True)
try:
    (directory / "started").touch(); time.sleep(90)
except KeyboardInterrupt:
    if sys.argv[2] == "Stubborn":
        (directory / "heard").touch(); time.sleep(90)
    time.sleep(0.5); (directory / "checkpoint").touch()
    raise SystemExit(130)
"""


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for several tests, with the modules that they run; a run inside uses it, as any that is there."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        modules(folder, patch, fake_run=FAKE, killing=KILLING, slow_run=SLOW)
        with Ray().open(folder, jobs=3, threads=3, preload=()):
            yield


def descendants() -> set[str]:
    """This process and all that it started, directly or not."""
    found, parents = {str(os.getpid())}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[status.parent.name] = status.read_text().rpartition(")")[2].split()[1]
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening() -> list[str]:
    """Address, in hexadecimal, and port of every socket on which we or what we started wait for connections."""
    ours = set()
    for process in descendants():
        for link in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):
                ours.add(os.readlink(link))
    tables = [path.read_text().splitlines()[1:] for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))]
    sockets = [line.split() for lines in tables for line in lines]
    return [line[1] for line in sockets if line[3] == "0A" and f"socket:[{line[9]}]" in ours]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the tables of Linux")
@pytest.mark.usefixtures("started")
def test_a_local_ray_listens_to_this_machine_only() -> None:
    addresses = [place.partition(":")[0] for place in listening()]
    assert len(addresses) >= 3  # its store of tasks, its scheduler, this process
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(addresses) <= loopback


def modules(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    found = os.pathsep.join([str(folder), *(str(Path(p).absolute()) for p in sys.path if p)])
    monkeypatch.setenv("PYTHONPATH", found)


@pytest.mark.slow  # half a minute
@pytest.mark.usefixtures("started")
def test_killed_runs_are_retried_and_failing_ones_are_not(tmp_path: Path) -> None:
    configs = {config.method: config for config in grid(["Good", "Killed", "WorkerKilled", "Bad", "Doomed"], [0])}

    def fake(config: Named, directory: Path) -> list[str]:
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


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_the_same_scores_as_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also with another number of jobs, and when every worker is killed in the second epoch."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    data = ["--data", "digits", "--data.size", "120", "--batch_size", "16", "--accelerator", "cpu"]
    recipe = base([*data, "--epochs", "2", "--progress", "false"], "Joint", "test")
    configs = [found for (found,) in plan(recipe, [Row(name, name) for name in ("Joint", "MLA")], [0]).values()]

    def killing(config: Recipe, directory: Path) -> list[str]:
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
        measured = {"seconds": None, "cost": None, "digest": None}
        assert {**one, **measured} == {**other, **measured}


BENCHMARK = """
import io, signal, sys
from rich.console import Console
from types import SimpleNamespace
from counterpoise.benchmark import run
from counterpoise.benchmark.on_ray import Ray
if sys.argv[3] == "background":  # what a shell without job control does to `command &`
    signal.signal(signal.SIGINT, signal.SIG_IGN)
configs = [SimpleNamespace(method=sys.argv[2], id=f"{sys.argv[2]}-s{i}", title=f"seed {i}") for i in range(3)]
quiet = Console(file=io.StringIO())
command = lambda config, directory: [sys.executable, "-m", "slow_run", directory, config.method]
outcome = run(configs, command, sys.argv[1], jobs=2, threads=1, backend=Ray(*sys.argv[4:]), console=quiet)
print(len(outcome.stopped), len(outcome.waiting), len(outcome.failed)); sys.exit(outcome.exit_code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "where"), [("Polite", "background"), ("Stubborn", "foreground")])
def test_an_interruption_reaches_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, where: str
) -> None:
    modules(tmp_path, monkeypatch, slow_run=SLOW)
    interrupt(tmp_path / "runs", method, where)


def interrupt(runs: Path, method: str, where: str, *address: str) -> None:
    """Start a benchmark of three runs, interrupt it while two of them work, see what became of them."""
    configs = grid([method], range(2))
    directories = [runs / config.id for config in configs]
    arguments = [sys.executable, "-c", BENCHMARK, str(runs), method, where, *address]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(*(d / "started" for d in directories))
            process.send_signal(signal.SIGINT)
            if method == "Stubborn":
                wait_for(*(d / "heard" for d in directories))
                process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert out.split() == ["2", "1", "0"]
    assert [(d / "checkpoint").exists() for d in directories] == [method == "Polite"] * 2
    for config in configs:  # whatever is left of a run holds this lock
        opened(Order([], runs / "logs" / f"{config.id}.log", 1), patience=20).close()


@pytest.mark.usefixtures("started")
@pytest.mark.slow  # waits for a cluster
def test_a_worker_that_could_not_hear_is_asked_again(tmp_path: Path) -> None:
    """As in a cluster that was started in the background of a script, before the task listens."""
    import ray

    def deaf(folder: Path) -> End:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            (folder / "deaf").touch()
            time.sleep(1)
            return work(["", "-m", "slow_run", str(folder / "run"), "Polite"], str(folder / "log"), 1, str(folder))
        finally:
            signal.signal(signal.SIGINT, before)

    task = on_ray._Task(ray.remote(deaf).options(max_retries=0).remote(tmp_path))
    wait_for(tmp_path / "deaf")
    task.interrupt()
    wait_for(tmp_path / "run" / "started")
    deadline = time.monotonic() + 60
    while (end := task.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert end == End("failed with exit status 130")
    assert (tmp_path / "run" / "checkpoint").exists()


def wait_for(*paths: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.02)


def test_what_a_worker_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray: the function that runs in its workers."""
    monkeypatch.setattr(on_ray, "LEFT_BEHIND", 0.1)
    log = tmp_path / "a.log"
    assert work(["", "-S", "-c", "print('here'); raise SystemExit(3)"], str(log), 1, str(tmp_path)) == End(
        "failed with exit status 3"
    )
    assert log.read_text().endswith("here\n")
    with log.open("ab") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_EX)
        end = work(["", "-S", "-c", ""], str(log), 1, str(tmp_path))
        assert end.kind == "busy"
        assert end.reason.startswith("is being run by another process (on ")
    for arguments, where in ((["/no/such/program"], log), ([""], tmp_path / "no" / "a.log")):
        assert work(arguments, str(where), 1, str(tmp_path)).reason.startswith("could not be started: ")
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


@pytest.mark.parametrize(("scheme", "tries"), [("", 1), ("ray://", on_ray.CLIENT_TRIES)])
def test_a_server_for_a_client_that_ends_at_once(scheme: str, tries: int) -> None:
    class Stub:
        def __init__(self, works: int):
            self.asked, self.works = 0, works

        def init(self, **_: object) -> None:
            self.asked += 1
            if self.asked != self.works:
                raise ConnectionError("Starting Ray client server failed.")

    with socket.create_server(("127.0.0.1", 0)) as there:
        ray = Ray(f"{scheme}127.0.0.1:{there.getsockname()[1]}")
        ray._connect(works := Stub(tries), 1)
        assert works.asked == tries
        with pytest.raises(ConnectionError, match=r"no Ray cluster could be reached \(Starting Ray"):
            ray._connect(never := Stub(0), 1)
        assert never.asked == tries


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--backend ray needs the package ray: pip install 'counterpoise\[ray\]'"):
        Ray()
