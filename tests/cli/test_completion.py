"""TAB completes commands and options."""

import shutil
import subprocess

import pytest

from counterpoise.cli import COMMANDS
from counterpoise.cli.completion import BASH, bash, fish, options_of

OPTIONS = {"predict": ["--force", "--out"], "methods": ["--help"]}


def completed(*words: str) -> list[str]:
    script = bash(OPTIONS, BASH)
    typed = " ".join(f"'{word}'" for word in ("counterpoise", *words))
    ask = f'COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _counterpoise; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes():
    assert completed("dia") == ["diagnose"]
    assert completed("") == list(COMMANDS)
    assert completed("predict", "--o") == ["--out"]
    assert completed("predict", "runs/x", "--") == ["--force", "--out"]
    assert completed("methods", "--o") == []


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_names_of_files(tmp_path, monkeypatch):
    (tmp_path / "clips.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert completed("predict", "cl") == ["clips.csv"]


def test_fish_has_a_line_for_each_command_and_option():
    lines = fish(OPTIONS).splitlines()
    assert len(lines) == len(COMMANDS) + 3
    assert "complete -c counterpoise -n '__fish_seen_subcommand_from predict' -l out" in lines


def test_options_are_those_of_the_help():
    assert {"--out", "--force", "--trust", "--help"} <= set(options_of("predict"))
    assert {"--epochs", "--method", "--data", "--run_dir"} <= set(options_of("fit"))


def test_every_command_says_its_options(run):
    done = run("completion", "zsh")
    assert done.code == 0
    assert done.out.startswith("autoload -U +X bashcompinit")
    assert all(f'        {name}) options="' in done.out for name in COMMANDS if name != "completion")
