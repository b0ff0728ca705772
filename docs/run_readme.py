"""Run the examples of README.md, in order and in the current folder, with the package that this Python has.

``make dist`` does so with the wheel in an environment of its own. Commands of ``make`` are left out.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> None:
    """Stops at the first example that fails."""
    command = Path(sys.executable).with_name("counterpoise")
    for language, block in BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            run([sys.executable, "-W", "error::DeprecationWarning:counterpoise", "-c", block])
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] in (["counterpoise"], ["python"]):
                run([str(command) if words[0] == "counterpoise" else sys.executable, *words[1:]])


def run(words: list[str]) -> None:
    """Run a program, after saying which."""
    print("+", *(word if "\n" not in word else "..." for word in words), flush=True)
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
