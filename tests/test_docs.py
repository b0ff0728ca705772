"""What the documents say is true: their code and commands run, their tables and links are up to date."""

from __future__ import annotations

import contextlib
import inspect
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpoise import cli, methods
from counterpoise.data import READERS

ROOT = Path(__file__).resolve().parent.parent
GENERATE = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "generate.py")))
PAGES = ("README.md", "docs/architecture.md", "docs/guide.md", "docs/scripts.md", "docs/studies.md", "CONTRIBUTING.md")
LONG = ("docs/guide.md", "docs/scripts.md", "docs/studies.md")
EVERY_PAGE = [p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("make ", ". .venv/")  # run by hand and by .ci/run
SECTIONS = [
    "Rule",
    "What it changes",
    "When it helps, and when not",
    "Arguments and the paper's values",
    "Deviations from paper and released code",
    "Cost",
    "Citation",
]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shell(block: str, namespace: dict) -> None:
    """The lines of a shell block, inside this process: Python and the commands of this package."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "-c"]:
            exec(words[2], dict(namespace))
        elif words[:1] == ["counterpoise"]:
            code = None
            try:
                cli.main(words[1:])
            except SystemExit as end:
                code = end.code
            assert not code, f"{line} ended with {code}"
        elif words:
            assert line.startswith(ELSEWHERE), f"no test runs this line: {line}"


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in PAGES])
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In order, in one folder and one namespace; a YAML block is saved under the name in its first line."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "__main__"}
    for language, block in BLOCK.findall(text(page)):
        if language == "python":
            exec(compile(block, page, "exec"), namespace)
        elif language == "bash":
            shell(block, namespace)
        elif language == "yaml":
            name = block.splitlines()[0].removeprefix("# ")
            assert name.endswith(".yaml"), f"{page}: the first line of a YAML block must name its file"
            Path(name).write_text(block, encoding="utf-8")
        else:
            assert language in ("text", "bibtex", "csv"), f"{page}: {language} blocks are not tested"


@pytest.mark.slow
def test_examples_of_the_readme_repeat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Whatever the global generators are at."""
    monkeypatch.chdir(tmp_path)
    said = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        for language, block in BLOCK.findall(text("README.md")):
            if language == "python":
                exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
        said.append(re.sub(r"[\d.]+ s\b", "", capsys.readouterr().out))
    assert said[0]
    assert said[0] == said[1]


def test_shell_blocks_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="ended with 2"):
        shell("counterpoise fitt --data digits", {})
    with pytest.raises(AssertionError, match="no test runs"):
        shell("make\nsudo reboot", {})


@pytest.mark.parametrize("page", GENERATE.PAGES)
def test_method_table_is_up_to_date(page: str):
    assert text(page) == GENERATE.page(page), "run make docs"


def test_readme_shows_the_table_of_the_command(capsys: pytest.CaptureFixture[str]):
    with contextlib.suppress(SystemExit):
        cli.main(["methods", "--markdown"])
    assert capsys.readouterr().out.strip() in text("README.md")


@pytest.mark.parametrize("name", methods.__all__)
def test_every_method_has_a_card(name: str):
    card = text(f"docs/methods/{name.lower()}.md")
    assert card.startswith("# ")
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == SECTIONS


def test_every_card_is_of_a_method():
    cards = {p.stem for p in (ROOT / "docs" / "methods").glob("*.md")} - {"README"}
    assert cards == {name.lower() for name in methods.__all__}


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_links_lead_somewhere(page: str):
    here = (ROOT / page).parent
    prose = re.sub(r"```.*?```|`[^`]*`|\$\$?.*?\$\$?", "", text(page), flags=re.DOTALL)
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in t]
    assert [t for t in targets if t and not (here / t).exists()] == []


def test_reader_options_exist():
    section = text("docs/guide.md").split("## Readers")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", section, re.MULTILINE)
    assert len(rows) >= 6
    for name, cell in rows:
        known = inspect.signature(READERS[name]).parameters
        assert [option for option in re.findall(r"`(\w+)`", cell) if option not in known] == [], name


def test_pictures_stay_small():
    assert all(p.stat().st_size < 200_000 for p in (ROOT / "docs" / "images").iterdir())
