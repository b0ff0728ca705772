"""Freed memory stays with the process once it asked for that."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHILD = """
import ctypes, resource, sys
from counterpoise.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(100 * 2**20)
    ctypes.memset(block, 1, 100 * 2**20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of_a_step()
print(faults_of_a_step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
@pytest.mark.slow  # a fresh process
def test_the_second_step_finds_the_pages_of_the_first() -> None:
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", CHILD, how], capture_output=True, check=True).stdout)

    given_back, kept = faults("default"), faults("keep")
    assert kept < given_back / 10, (kept, given_back)
