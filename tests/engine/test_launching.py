"""Processes that something else started: torchrun, a command on each machine, srun. The result is that of one."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from launched_child import main

from counterpoise.engine import make_fabric
from counterpoise.engine.replicas import RANKS, is_first, started_by

CHILD = str(Path(__file__).with_name("launched_child.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


@pytest.mark.parametrize(
    ("ranks", "first"), [({}, True), ({"RANK": "0", "LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False),
                         ({"RANK": "2", "LOCAL_RANK": "0"}, False), ({"SLURM_PROCID": "1"}, False)],
)  # fmt: skip
def test_one_process_speaks(monkeypatch, ranks, first):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    assert is_first() is first


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def environment(**more):
    """Without what a launcher of this test run would have left."""
    ours = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    return {**ours, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **more}


def start(command, **more):
    return subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes):
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)
    return said


def same_as_one(directory, world=2):
    main(directory / "one")
    expected = torch.load(directory / "one" / "0-of-1.pt", weights_only=True)
    for rank in range(world):
        found = torch.load(directory / f"{rank}-of-{world}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


@pytest.mark.slow
def test_torchrun_says_how_many(tmp_path):
    (said,) = finish(start([*TORCHRUN, "--master_port", free_port(), CHILD, str(tmp_path)]))
    same_as_one(tmp_path)
    assert (tmp_path / "run" / "result.json").is_file()
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1, said  # one process logged


@pytest.mark.slow
def test_two_machines_each_with_its_command(tmp_path):
    """Two processes that know of each other what the guide tells users to say: the number, the address, the port."""
    where = {"MASTER_PORT": free_port()}
    command = [sys.executable, CHILD, str(tmp_path), "num_nodes=2"]
    finish(*(start(command, NODE_RANK=str(rank), **where) for rank in range(2)))
    same_as_one(tmp_path)


@pytest.mark.slow
def test_srun_says_how_many(tmp_path):
    """With the variables that Slurm sets, two tasks on two machines."""
    slurm = {"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}
    slurm |= {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "MASTER_PORT": free_port()}
    command = [sys.executable, CHILD, str(tmp_path)]
    finish(*(start(command, **slurm, SLURM_PROCID=str(r), SLURM_NODEID=str(r)) for r in range(2)))
    same_as_one(tmp_path)


@pytest.mark.slow
def test_two_torchruns_are_two_machines(tmp_path):
    where = ["--nnodes", "2", "--master_addr", "127.0.0.1", "--master_port", free_port()]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", *where]
    finish(*(start([*command, "--node_rank", str(rank), CHILD, str(tmp_path)]) for rank in range(2)))
    same_as_one(tmp_path)


def test_who_started_this(monkeypatch):
    assert started_by() is None
    monkeypatch.setenv("SLURM_NTASKS", "6")  # in a job, but not within srun
    assert started_by() is None
    for name, value in {"TASKS": "6", "NODES": "3"}.items():
        monkeypatch.setenv(f"SLURM_STEP_NUM_{name}", value)
    assert started_by() == ("srun", 2, 3)
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert started_by() is None
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert started_by() == ("torchrun", 2, 4)
    with pytest.raises(ValueError, match=r"torchrun started 2 processes on each of 4 machines, but devices=4"):
        make_fabric(accelerator="cpu", devices=4, num_nodes=2)


@pytest.mark.slow  # four launches
@pytest.mark.parametrize("launcher", [[sys.executable], TORCHRUN], ids=["devices", "torchrun"])
def test_a_process_that_dies_ends_the_run_and_two_processes_or_one_resume_it(tmp_path, launcher):
    options = ["how=killed"] if launcher is TORCHRUN else ["how=killed", "devices=2"]
    address = ["--master_port", free_port()] if launcher is TORCHRUN else []
    process = start([*launcher, *address, CHILD, str(tmp_path), *options])
    said = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "process 0: ReplicaLostError: Process 0 of 2 cannot go on, because another one ended" in said, said
    assert "--resume" in said
    main(tmp_path)  # in one process, from the end of the first epoch
    main(tmp_path / "one")
    resumed, whole = (torch.load(d / "0-of-1.pt", weights_only=True) for d in (tmp_path, tmp_path / "one"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


@pytest.mark.slow
def test_two_network_namespaces(tmp_path):
    """Two machines as far as the network can tell: each its own address, a cable between them."""
    here, there = (f"cp{uuid.uuid4().hex[:6]}{end}" for end in "ab")
    ip = shutil.which("ip")
    if ip is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2")

    def run(*command, check=True):
        return subprocess.run([ip, *command], capture_output=True, check=check)

    try:
        for number, name in enumerate((here, there), start=1):
            if run("netns", "add", name, check=False).returncode:
                pytest.skip("this machine makes no network namespaces")
            if number == 2 and run("link", "add", here, "type", "veth", "peer", "name", there, check=False).returncode:
                pytest.skip("this machine makes no veth pairs")
        for number, name in enumerate((here, there), start=1):
            run("link", "set", name, "netns", name)
            run("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            run("-n", name, "link", "set", name, "up")
            run("-n", name, "link", "set", "lo", "up")
        where = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": free_port()}
        command = [sys.executable, CHILD, str(tmp_path), "num_nodes=2"]
        finish(
            *(
                start([ip, "netns", "exec", name, *command], NODE_RANK=str(rank), GLOO_SOCKET_IFNAME=name, **where)
                for rank, name in enumerate((here, there))
            )
        )
    finally:
        for name in (here, there):
            run("netns", "del", name, check=False)
    same_as_one(tmp_path)
