from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

import counterpoise
from conftest import Run
from counterpoise.cli import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments)
    shown = capsys.readouterr().out
    assert shown.startswith("usage: counterpoise COMMAND [options]")
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_help_is_quick_and_python_m_works() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']; import runpy; runpy.run_module('counterpoise', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}assert 'torch' not in sys.modules, 'help imports torch'"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == counterpoise.__version__


def test_unknown_command(run: Run) -> None:
    done = run("reprot")
    assert done.code == 2
    assert done.err.startswith(
        "counterpoise: Unknown command 'reprot'. Did you mean 'report'? Known: auto, benchmark, completion, data,"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str, run: Run) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: counterpoise {name}")
    assert max(map(len, done.out.splitlines())) <= 80


def test_failures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("report", "nowhere")
    assert done.code == 1
    assert done.err.startswith("counterpoise: There is no directory nowhere")
    assert "COUNTERPOISE_TRACEBACK=1" in done.err
    monkeypatch.setenv("COUNTERPOISE_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["report", "nowhere"])


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (KeyboardInterrupt("Stopped after epoch 3."), 130, "Stopped after epoch 3."),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (RuntimeError("it broke"), 1, "it broke"),
    ],
)
def test_exit_codes(raised: BaseException, code: int, message: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise raised

    monkeypatch.setattr(import_module("counterpoise.cli.methods"), "main", fails)
    done = run("methods")
    assert done.code == code
    assert done.err.startswith(f"counterpoise: {message}\n")


def test_warnings_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(_: object) -> int:
        warnings.simplefilter("always")
        warnings.warn("beware", stacklevel=1)
        return 0

    monkeypatch.setattr(import_module("counterpoise.cli.methods"), "main", warns)
    done = run("methods")
    assert (done.code, done.err) == (0, "counterpoise: warning: beware\n")
