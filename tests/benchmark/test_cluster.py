"""Runs on a cluster of two nodes of Ray; both are on this machine, so they share its files, processors and network."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from grids import Named, grid
from test_ray import FAKE, SLOW, interrupt, modules, quiet

from counterpoise.benchmark import on_ray
from counterpoise.benchmark.backends import Order, opened
from counterpoise.benchmark.on_ray import Ray
from counterpoise.benchmark.runner import run

pytestmark = pytest.mark.slow

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])}
cluster = Cluster(initialize_head=True, head_node_args=head)
other = cluster.add_node(num_cpus=1)
print(cluster.address, other.all_processes["raylet"][0].process.pid, flush=True)
for line in sys.stdin:
    cluster.remove_node(other, allow_graceful=False)
cluster.shutdown()
"""

DRIVER = """
import sys
from counterpoise.benchmark import plan
from counterpoise.cli import main
plain = plan.command
def command(config, directory):
    python, how, _, *rest = plain(config, directory)
    return [python, how, "paced", *rest]
plan.command = command
main(sys.argv[1:])
"""

PACED = """
import os, sys, time
from counterpoise.cli import main
from counterpoise.engine.record import RunDirectory
plain = RunDirectory.append
def append(self, record):
    plain(self, record)
    with self.path.with_name(self.path.name + ".nodes").open("a") as nodes:
        print(os.environ["RAY_RAYLET_PID"], file=nodes)
    while record["epoch"] == 2 and not (self.path.parents[1] / "go").exists():
        time.sleep(0.05)
RunDirectory.append = append
main(sys.argv[1:])
"""


class Nodes(NamedTuple):
    process: subprocess.Popen[str]
    address: str
    client: str
    other: str  # the raylet of the node that can be lost: where the driver is not


@contextlib.contextmanager
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-c", CLUSTER, str(port)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address, other = process.stdout.readline().split()
        yield Nodes(process, address, f"ray://127.0.0.1:{port}", other)


def fake(config: Named, directory: Path) -> list[str]:
    return [sys.executable, "-m", "fake_run", str(directory), config.method]


def test_runs_and_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, monkeypatch, fake_run=FAKE)
    with nodes(monkeypatch) as (_, address, _, _):
        configs = grid(["Good", "Killed"], [0, 1])
        outcome = run(configs, fake, tmp_path / "runs", jobs=2, threads=1, backend=Ray(address), console=quiet())
        assert len(outcome.finished) == 4
        with pytest.raises(ValueError, match="No machine of the Ray cluster has 2 CPUs and 0 GPUs"):
            run(grid(["Good"], [2]), fake, tmp_path / "runs", threads=2, backend=Ray(address), console=quiet())
        monkeypatch.setattr(on_ray, "sees", lambda folder, mark: "elsewhere")
        with pytest.raises(ValueError, match=r"elsewhere: no .*/runs, or not the working directory"):
            run(grid(["Good"], [2]), fake, tmp_path / "runs", threads=1, backend=Ray(address), console=quiet())


def test_a_comparison_that_loses_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run goes on from its checkpoint on the other node, and the table is that of local processes bit for bit."""
    modules(tmp_path, monkeypatch, driver=DRIVER, paced=PACED)
    options = ["--data", "digits", "--data.size", "120", "--batch_size", "16", "--accelerator", "cpu", "--epochs", "3"]
    options += ["--progress", "false", "--methods", "Joint,MLA", "--seeds", "0,1", "--jobs", "2", "--threads", "1"]
    here, there = tmp_path / "here", tmp_path / "there"
    subprocess.run([sys.executable, "-m", "counterpoise", "benchmark", *options, "--out", here], check=True)

    def ran() -> dict[str, list[str]]:
        return {mark.stem: mark.read_text().split() for mark in (there / "runs").glob("*.nodes")}

    with nodes(monkeypatch) as (cluster, address, _, other):
        ray = ["--backend", "ray", "--address", address, "--out", there]
        with subprocess.Popen([sys.executable, "-m", "driver", "benchmark", *options, *ray]) as driver:
            try:
                wait(lambda: [len(where) for where in ran().values()] == [2, 2])
                (lost,) = (name for name, where in ran().items() if where == [other] * 2)
                (left,) = (where[0] for name, where in ran().items() if name != lost)
                assert cluster.stdin is not None
                print("lose it", file=cluster.stdin, flush=True)
                log = there / "runs" / "logs" / f"{lost}.log"
                opened(Order([], log, 1), patience=60).close()  # the run is gone with its node
                (there / "go").touch()
                assert driver.wait(timeout=300) == 0
            finally:
                driver.kill()
    assert ran()[lost] == [other, other, left]  # the third epoch alone: it went on from the checkpoint of the second
    assert [len(where) for where in ran().values()] == [3] * 4
    tables = [json.loads((out / "results.json").read_text()) for out in (here, there)]
    for table in tables:
        for measured in table["summary"]["rows"].values():
            del measured["seconds"]
        for record in table["runs"]:
            del record["seconds"], record["cost"]
    assert tables[0] == tables[1]


def test_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a process that is no part of the cluster; also when it is interrupted."""
    modules(tmp_path, monkeypatch, fake_run=FAKE, slow_run=SLOW)
    with nodes(monkeypatch) as (_, _, client, _):
        configs = grid(["Good", "Killed", "WorkerKilled", "Bad"], [0])
        outcome = run(configs, fake, tmp_path / "runs", jobs=2, threads=1, backend=Ray(client), console=quiet())
        assert len(outcome.finished) == 3
        assert [failure.reason for failure in outcome.failed.values()] == ["failed with exit status 1"]
        interrupt(tmp_path / "interrupted", "Polite", "foreground", client)


def wait(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
