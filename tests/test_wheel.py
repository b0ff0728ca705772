from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "counterpoise"
BESIDE_CODE = (
    "py.typed",
    "report/templates/page.css",
    *(str(p.relative_to(PACKAGE)) for p in sorted((PACKAGE / "datasets" / "recipes").rglob("*.yaml"))),
)


def test_what_lies_beside_the_code_is_there() -> None:
    for name in BESIDE_CODE:
        assert (PACKAGE / name).is_file(), name
    ignored = subprocess.run(
        ["git", "check-ignore", *(str(PACKAGE / name) for name in BESIDE_CODE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ignored.stdout == ""  # the build leaves out what git ignores


def test_the_wheel_holds_the_package(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("counterpoise-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = next(archive.read(n).decode() for n in names if n.endswith("entry_points.txt"))
    code_files = {str(p.relative_to(PACKAGE.parent)) for p in PACKAGE.rglob("*.py")}
    assert code_files | {f"counterpoise/{name}" for name in BESIDE_CODE} <= names
    assert "counterpoise = counterpoise.cli:main" in scripts
    assert not [n for n in names if "test" in n.split("/")[0] or n.endswith((".pyc", ".csv", ".wav"))]
