"""The site: its reference leaves no public name out, and it builds without a warning."""

from __future__ import annotations

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import counterpoise

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "reference.py")))


def test_the_reference_has_every_public_name():
    packages = {name.removeprefix("counterpoise.") for name in REFERENCE.PACKAGES}
    parts = {name for name in counterpoise.__all__ if inspect.ismodule(getattr(counterpoise, name))}
    assert parts - packages == set()
    assert set(REFERENCE.public("counterpoise")) == set(counterpoise.__all__) - parts
    for package in REFERENCE.PACKAGES:
        page = REFERENCE.page(package)
        assert [name for name in REFERENCE.public(package) if f"\n{name}\n{'-' * len(name)}\n" not in page] == []


def test_every_constant_of_the_reference_says_what_it_is():
    assert "optimizers" in REFERENCE.documented("counterpoise.engine", "OPTIMIZERS")
    with pytest.raises(ValueError, match="write one below its assignment"):
        REFERENCE.documented("counterpoise.engine", "NOTHING")


def test_every_page_of_the_documents_is_on_the_site():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    notebooks = {f"notebooks/{p.stem}" for p in (ROOT / "docs" / "notebooks").glob("*.md")}
    listed = set(
        re.findall(r"^[\w/]+$", "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)), re.MULTILINE)
    )
    assert pages | notebooks <= listed


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path):
    """Warnings are errors, links between pages among them; the notebooks have a test of their own."""
    for module in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(module, reason="the site is built with the extra docs: pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    built = subprocess.run([*command, "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "api" / "counterpoise.methods.html").is_file()
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"(https?:[^\"]*)\"", page.read_text("utf-8"))
        assert loaded == [], f"{page.name} asks another host for {loaded}"
