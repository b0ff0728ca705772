"""``counterpoise completion``."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from importlib import import_module

from counterpoise.cli import COMMANDS
from counterpoise.recipe.messages import Options

BASH = """# counterpoise: completion of commands and options; file names elsewhere
_counterpoise() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _counterpoise counterpoise
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH


def main(arguments: Sequence[str]) -> int:
    """Print the script that completes commands and options in a shell."""
    parser = Options(
        prog="counterpoise completion",
        description="Completion of commands and options by TAB: write the output to a file and `source` that in "
        "~/.bashrc (zsh: ~/.zshrc), or for fish to ~/.config/fish/completions/counterpoise.fish. Making it takes "
        "seconds, so not at every start of a shell; make it again after an upgrade.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    shell = parser.parse_args(arguments).shell
    options = {command: options_of(command) for command in COMMANDS if command != "completion"}
    print(fish(options) if shell == "fish" else bash(options, ZSH if shell == "zsh" else BASH), end="")
    return 0


def options_of(command: str) -> list[str]:
    """The options that the help of a command names."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        import_module(f"counterpoise.{COMMANDS[command][0]}").main(["--help"])
    return sorted({*re.findall(r"(?<![\w`-])(--[A-Za-z][\w.]*)", text.getvalue()), "--help"})


def bash(options: Mapping[str, Sequence[str]], template: str) -> str:
    """The script for bash, or for zsh, which reads the same."""
    cases = "\n".join(f'        {command}) options="{" ".join(names)}" ;;' for command, names in options.items())
    return template.format(commands=" ".join(COMMANDS), cases=cases)


def fish(options: Mapping[str, Sequence[str]]) -> str:
    """The script for fish."""
    lines = [
        f"complete -c counterpoise -n __fish_use_subcommand -f -a {name} -d '{text.replace(chr(39), ' ')}'"
        for name, (_, text) in COMMANDS.items()
    ]
    for command, names in options.items():
        seen = f"'__fish_seen_subcommand_from {command}'"
        lines += [f"complete -c counterpoise -n {seen} -l {name.removeprefix('--')}" for name in names]
    return "\n".join(lines) + "\n"
