"""Runs as tasks of Ray, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise._extras import require
from counterpoise.benchmark.backends import End, NotStarted, Order, Running, ended, noted, opened, spawned
from counterpoise.benchmark.forked import Fork

RETRIES = 3
"""How often a run that was killed, with its worker or alone, is started again."""
LEFT_BEHIND = 10.0
"""Seconds that the run of a killed worker has to vanish before its retry gives up."""
CLIENT_TRIES = 3
"""How often a ``ray://`` address is tried: the server that Ray starts for a client may end at once."""
AGAIN = 2.0
"""Seconds after which a run that still works is asked to stop once more."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray of one machine listens to nothing but it, on every system; read when Ray is imported."""
STORE = 80 * 2**20
"""Bytes of memory for the object store of a local Ray: nothing is put there."""


class RunKilled(RuntimeError):  # noqa: N818 - the run was
    """A run was ended by a signal that we did not send; Ray tries it again."""


class Ray:
    """Every run a Ray task: a process with the very same command line as without Ray.

    A run that was killed, or whose worker or machine is gone, is started again up to ``RETRIES`` times
    and resumes from its last checkpoint. A run that fails by itself is not.

    Args:
        address: of a cluster (``auto``, ``host:port``, ``ray://host:port``); None starts Ray on this machine.
        gpus: reserved for each run; Ray hides all others from it.

    Raises:
        ImportError: when Ray is not installed.
    """

    def __init__(self, address: str | None = None, gpus: float = 0.0):
        require("--backend ray", "ray")
        with _environment({} if address else LOOPBACK):
            import ray  # noqa: F401
        self.address, self.gpus = address, gpus

    @contextlib.contextmanager
    def open(self, runs: Path, jobs: int, threads: int, preload: Sequence[str]) -> Iterator[None]:
        import ray

        ours = not ray.is_initialized()
        if ours:
            self._connect(ray, jobs * threads)
        try:
            self._check(ray, runs, threads)
            self._task = ray.remote(work).options(
                num_cpus=threads, num_gpus=self.gpus, max_retries=RETRIES, retry_exceptions=[RunKilled]
            )
            yield
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any, cpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is not None:
            tries = CLIENT_TRIES if self.address.startswith("ray://") else 1
            try:
                _reach(self.address)
                for left in reversed(range(tries)):
                    try:
                        ray.init(address=self.address, **quiet)
                        return
                    except ConnectionError:
                        if not left:
                            raise
            except (OSError, RuntimeError, ValueError) as error:
                raise ConnectionError(
                    f"--address {self.address}: no Ray cluster could be reached ({error}). "
                    "`ray start --head` starts one; without --address Ray runs on this machine alone."
                ) from error
        # Nothing is reported to anyone, and a run without reserved GPUs sees what it would see without Ray.
        with _environment({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", **LOOPBACK}):
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=STORE,
                **quiet,
            )

    def _check(self, ray: Any, runs: Path, threads: int) -> None:
        """Whether a run fits on a machine of the cluster, and every such machine sees the folder of the runs."""
        from ray import exceptions
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [
            node
            for node in ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU", 0) >= threads
            and node["Resources"].get("GPU", 0) >= self.gpus
        ]
        if not nodes:
            raise ValueError(
                f"No machine of the Ray cluster has {threads} CPUs and {self.gpus:g} GPUs for a run; --threads and "
                "--gpus say how many it gets."
            )
        if self.address is None:
            return
        if not self.gpus and any(node["Resources"].get("GPU") for node in nodes):
            warnings.warn(
                "The cluster has GPUs, and Ray hides them from the runs; --gpus 1 gives each one.", stacklevel=2
            )
        mark = (runs / f".{uuid.uuid4().hex}").absolute()
        mark.touch()
        try:
            asked = [
                ray.remote(sees)
                .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
                .remote(str(Path.cwd()), str(mark))
                for node in nodes
            ]
            blind = [name for name in ray.get(asked) if name]
        except exceptions.RayError as error:
            raise RuntimeError(
                f"A machine of the Ray cluster cannot start runs; the same version of counterpoise must be installed "
                f"on all of them. {error}"
            ) from error
        finally:
            mark.unlink()
        if blind:
            raise ValueError(
                f"{', '.join(sorted(blind))}: no {runs.absolute()}, or not the working directory {Path.cwd()}. "
                "On a cluster both must be on a file system that all machines share, at the same path."
            )

    def start(self, order: Order) -> Running:
        # Another machine may have another Python at another place.
        program, *rest = order.arguments
        arguments = ["" if program == sys.executable else program, *rest]
        return _Task(self._task.remote(arguments, str(order.log.absolute()), order.threads, str(Path.cwd())))


class _Task:
    """A run as a task."""

    def __init__(self, reference: Any):
        self._reference = reference
        self._asked: float | None = None

    def poll(self) -> End | None:
        import ray
        from ray import exceptions

        ready, _ = ray.wait([self._reference], timeout=0)
        if not ready:
            # A worker that inherited that SIGINT is ignored, from a shell that started Ray in the background, hears
            # nothing until `work` listens in it, and Ray believes that it heard.
            if self._asked is not None and time.monotonic() >= self._asked + AGAIN:
                self.interrupt()
            return None
        try:
            return ray.get(self._reference)
        except exceptions.TaskCancelledError:
            return End("was stopped before it began", "killed")
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, RunKilled):
                return End(f"{error.cause}, {RETRIES + 1} times", "killed")
            return End(f"failed: {error}")
        except exceptions.RayError as error:
            return End(f"was lost with its worker: {str(error).splitlines()[0]}", "killed")

    def interrupt(self) -> None:
        import ray

        ray.cancel(self._reference)
        self._asked = time.monotonic()

    def kill(self) -> None:
        import ray

        ray.cancel(self._reference, force=True)


def _reach(address: str, patience: float = 10.0) -> None:
    """OSError when nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=patience).close()


def work(arguments: Sequence[str], log: str, threads: int, folder: str) -> End:
    """In a worker: run a command line until it ends, and say how it did; cancelling asks it to end.

    Args:
        arguments: the command line, with an empty text for the Python of this machine.
        log: file that its output is appended to.
        threads: that it may compute with.
        folder: the working directory.

    Raises:
        RunKilled: when something else has killed it.
    """
    order = Order([part or sys.executable for part in arguments], Path(log), threads)
    told = False
    try:
        # Ray cancels a task by calling this worker's handler of SIGINT, and does nothing where there is none.
        with noted("SIGINT") as asked, _leashed(order, folder) as process:
            while process.poll() is None:
                if asked and not told:  # once: a second signal would take the run's checkpoint from it
                    process.send_signal(signal.SIGINT)
                    told = True
                time.sleep(0.05)
    except NotStarted as why:
        return End(f"{why} (on {platform.node()})", why.end.kind)
    end = ended(process.returncode)
    if process.returncode < 0 and not asked:
        raise RunKilled(end.reason)
    return end


@contextlib.contextmanager
def _leashed(order: Order, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process; it ends when this one does."""
    held, leash = os.pipe()  # nobody else has the writing end, and it is closed with this process
    arguments, environment = list(order.arguments), {**os.environ, **order.environment()}
    if Fork.fits(arguments):
        arguments[2:2] = ["counterpoise.benchmark.leashed", str(held)]
    try:
        with opened(order, patience=LEFT_BEHIND) as log:
            yield spawned(arguments, log, environment, folder=folder, pass_fds=[held])
    except OSError as error:
        raise NotStarted(f"could not be started: {error}") from error
    finally:
        os.close(held)
        os.close(leash)


def sees(folder: str, mark: str) -> str:
    """In a worker: its name when it lacks the working directory or the mark in the folder of the runs, else nothing."""
    return "" if Path(folder).is_dir() and Path(mark).is_file() else platform.node()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that are set for a while, unless they are set already."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
