"""How long the command line takes to answer, next to what importing PyTorch takes. Processes in turn."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable

from measure import in_turn, publish, ratio, spread, table

COMMANDS = {
    "an empty program": ["-c", ""],
    "`import torch`": ["-c", "import torch"],
    "`import counterpoise`": ["-c", "import counterpoise"],
    "`counterpoise --version`": ["-m", "counterpoise", "--version"],
    "`counterpoise --help`": ["-m", "counterpoise", "--help"],
    "`counterpoise study --help`": ["-m", "counterpoise", "study", "--help"],
    "`counterpoise methods`": ["-m", "counterpoise", "methods"],
    "`counterpoise fit --help`": ["-m", "counterpoise", "fit", "--help"],
}
TORCH = "`import torch`"
FIT = "`counterpoise fit`, until its first line"


def used() -> float:
    """Processor seconds of the processes that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def started(arguments: list[str]) -> Callable[[], float]:
    """A process from its start to its end."""
    line = [sys.executable, *arguments]

    def case() -> float:
        before = used()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        return used() - before

    return case


def first_line() -> float:
    """A fit on the digits until it says what it reads."""
    line, before = [sys.executable, "-m", "counterpoise", "fit", "--data", "digits", "--method", "Joint"], used()
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit(f"{' '.join(line)} said nothing.")
        process.kill()
    return used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    own = parser.parse_args()
    cases = {name: started(arguments) for name, arguments in COMMANDS.items()}
    seconds = in_turn({**cases, FIT: first_line}, own.rounds)
    rows = [[name, spread(values, 3), spread(ratio(seconds, name, TORCH), 3)] for name, values in seconds.items()]
    body = (
        f"Processor seconds of a whole process, {own.rounds} rounds after one that warms the file cache, and the same "
        "divided by `import torch` of the round. The package's modules, and with them PyTorch, are imported when they "
        "are used first; the top-level help needs none of them.\n\n"
    )
    publish("startup", "Start-up", body + table(["process", "seconds", "of `import torch`"], rows))


if __name__ == "__main__":
    main()
