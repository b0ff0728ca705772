"""What a core install lacks says so, with the command that brings it; and everything imported is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import counterpoise
from counterpoise._extras import EXTRAS, named_when_missing, require

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CALLED = {
    "PIL": "pillow",
    "lightning_fabric": "lightning-fabric",
    "markupsafe": "jinja2",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "sqlalchemy": "optuna",
    "yaml": "pyyaml",
}
"""Imported name -> distribution that is declared, where they differ or it comes with another."""


def distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements}


CORE = distributions(PROJECT["dependencies"])
OPTIONAL = {extra: distributions(names) for extra, names in PROJECT["optional-dependencies"].items()}


def imported() -> dict[str, set[str]]:
    """Third-party package -> files that import it, in functions too."""
    files: dict[str, set[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for name in names:
                package = name.split(".")[0]
                if package not in sys.stdlib_module_names and package != "counterpoise":
                    files.setdefault(package, set()).add(path.name)
    return files


def test_everything_imported_is_declared():
    for package, files in imported().items():
        name = CALLED.get(package, package)
        if package in EXTRAS:
            assert name in OPTIONAL[EXTRAS[package]], (package, files)
        else:
            assert name in CORE, (package, files)


def test_everything_declared_is_imported():
    used = {CALLED.get(package, package) for package in imported()}
    for name in CORE:
        assert name in used, name
    for extra, names in OPTIONAL.items():
        if extra not in ("all", "dev", "docs"):
            of_others = {"onnx", "onnxscript", "tensorboard"}  # PyTorch's exporter and Fabric's logger import them
            assert names <= used | of_others, extra


def test_all_is_all():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"\w+", everything)) - {"counterpoise"} == set(OPTIONAL) - {"all", "dev", "docs"}


def test_the_readme_says_what_each_is_for():
    rows = re.findall(r"^\| (`.*`) \| .+ \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(OPTIONAL) - {"dev", "docs"} <= {extra for row in rows for extra in re.findall(r"`(\w+)`", row)}


def test_the_version_is_the_same_everywhere():
    stated = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert stated == [counterpoise.__version__]


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"^Reading needs the packages av, matplotlib: pip install 'counterpoise\[media,report\]'\.$"
    with pytest.raises(ImportError, match=message):
        require("Reading", "av", "matplotlib", "numpy")
    with pytest.raises(ImportError, match="needs the package av") as raised, named_when_missing("This"):
        import av  # noqa: F401
    assert raised.value.name == "av"


def test_other_failures_of_imports_stay_what_they_are():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), named_when_missing("This"):
        import nowhere  # noqa: F401  # pyright: ignore[reportMissingImports]


def core_only(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run where nothing of the extras can be imported."""
    # torchmetrics takes what it likes by asking what is installed, so it is imported before all of that is gone.
    block = f"""
import sys, torchmetrics
for name in [name for name in sys.modules if name.partition(".")[0] in {[*EXTRAS]}]:
    del sys.modules[name]
sys.modules.update(dict.fromkeys({[*EXTRAS]}))
"""
    return subprocess.run([sys.executable, "-c", block + code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow  # five fresh processes
def test_the_core_trains_saves_and_loads(tmp_path: Path):
    done = core_only(
        """
import torch, counterpoise as cp
torch.manual_seed(0)
inputs = {"a": torch.randn(60, 3), "b": torch.randn(60, 2)}
data = cp.from_arrays(inputs, torch.arange(60) % 2)
model = cp.build_model({"a": cp.encoders.MLP(3), "b": cp.encoders.MLP(2)}, "Late", num_classes=2)
trainer = cp.Trainer(model, "IGM", epochs=2, batch_size=16, progress=False, run_dir="run")
trainer.run(data)
cp.load("run").save_pretrained("folder")
cp.load("folder").export("model.pt2")
print(cp.load("folder").predict({m: x[:2] for m, x in inputs.items()}).shape)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(2,)"


NEEDING = {
    "cp.MultimodalClassifier": r"counterpoise.MultimodalClassifier needs the package \w+: .*counterpoise\[\w+\]",
    "cp.diagnose": r"counterpoise.diagnose needs the package \w+: pip install 'counterpoise\[report\]'",
    "cp.digits()": r"The embedded data digits needs the packages .*\[media,sklearn\]",
    "cp.encoders.ResNet18()": r"The encoder ResNet18 needs the package torchvision: .*\[media\]",
    "cp.encoders.Timm('resnet10t')": r"The encoder Timm needs the package timm: .*\[timm\]",
    "cp.methods.ReLearning()": r"ReLearning needs the package sklearn",
    "readers.Audio()": r"Audio needs the packages av, soundfile, soxr",
    "readers.Image()": r"Image needs the packages PIL, torchvision",
    "readers.Video()": r"Video needs the package av",
    "readers.Tabular(['x'])": r"Tabular needs the package sklearn",
    "cp.Table('a.csv')": r"Reading a table needs the package pyarrow: .*\[media\]",
    "cli.main(['fit', '--data', 'a.csv', '--method', 'OGM'])": r"Reading a table needs .*\[media\]",
    "cli.main(['benchmark'])": r"counterpoise benchmark needs the packages .*\[report\]",
    "cli.main(['reproduce'])": r"counterpoise reproduce needs the packages .*\[report\]",
    "cli.main(['tune'])": r"counterpoise tune needs the packages .*\[report\]",
}
"""Code -> what it says in a core install."""


def test_what_needs_more_says_so(tmp_path: Path):
    (tmp_path / "a.csv").write_text("label,x\na,1\nb,2\n")
    done = core_only(
        f"""
import contextlib, io
import counterpoise as cp, counterpoise.cli as cli
from counterpoise.data import readers
for code in {[*NEEDING]}:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            eval(code)
    except (ImportError, SystemExit) as error:
        print(" ".join(f"{{said.getvalue()}} {{error}}".split()))
    else:
        print("nothing")
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for (code, message), said in zip(NEEDING.items(), done.stdout.splitlines(), strict=True):
        assert re.search(message, said), (code, said)
