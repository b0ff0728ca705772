"""The dependency rule, read off the sources: who may import whom, what stays lazy, how long a file may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import counterpoise

SOURCE = Path(counterpoise.__file__).parent
HEAVY = (
    "torchvision", "transformers", "timm", "matplotlib", "sklearn", "av", "soundfile", "soxr", "ray", "optuna", "onnx",
    "onnxscript", "onnxruntime", "gradio", "lightning", "pytorch_lightning", "mlflow", "wandb", "trackio",
)  # fmt: skip

EVERYTHING = "*"
COMMAND = ("__init__", "__main__")  # of the package: they may see all, and nobody sees __main__


def allowed() -> dict[str, tuple[str, ...]]:
    """Part -> the parts it may import, from the list in the documentation."""
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    lines = [
        line.split() for line in re.findall(r"^([a-z]\w+ +(?:-|\*|[a-z ]+))$", text.split("```text")[1], re.MULTILINE)
    ]
    return {part: () if rest == ["-"] else tuple(rest) for part, *rest in lines}


PARTS = allowed()
PRIVATE = ("_checks", "_digests", "_extras", "_files", "_json", "_names", "_yaml", "types")
"""Open to all."""


class Import(NamedTuple):
    name: str  # dotted, absolute
    lazy: bool  # inside a function
    typing: bool  # under TYPE_CHECKING


def imports(source: str, module: tuple[str, ...]) -> Iterator[Import]:
    """Every import of a module; ``from a import b`` counts as ``a.b``."""

    def walk(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, lazy, typing) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = [*module[: -child.level], *filter(None, [child.module])] if child.level else [child.module]
                yield from (Import(".".join([*base, alias.name]), lazy, typing) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for part in child.body:
                    yield from walk(ast.Module([part], []), lazy, True)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), lazy, typing)
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, lazy or inside, typing)

    yield from walk(ast.parse(source), False, False)


def modules() -> dict[tuple[str, ...], Path]:
    """Dotted name, with ``__init__`` spelt out, -> file."""
    files = sorted(SOURCE.rglob("*.py"))
    return {("counterpoise", *file.relative_to(SOURCE).with_suffix("").parts): file for file in files}


MODULES = modules()


def broken(module: tuple[str, ...], source: str) -> list[str]:
    """What a module imports and must not."""
    part = module[1]
    found = []
    for name, lazy, typing in imports(source, module):
        root, *rest = name.split(".")
        if root == "lightning_fabric" and part != "engine":
            found.append(f"{name}: only the engine talks to Lightning Fabric")
        if root in HEAVY and not lazy and not typing and (part, root) != ("estimators", "sklearn"):
            found.append(f"{name}: import it in the function that needs it")
        target = rest[0] if rest else "__init__"
        if root != "counterpoise" or typing or part in (*COMMAND, *PRIVATE, "cli"):
            if root == "counterpoise" and (target == "__main__" or (part in PRIVATE and target not in PRIVATE)):
                found.append(f"{name}: {part} must not see {target}")
            continue
        if target not in (part, *PRIVATE, *PARTS[part]):
            found.append(f"{name}: {part} must not see {target}")
    return found


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("methods.x", "from counterpoise.engine import Step", ["counterpoise.engine.Step"]),
        ("methods.x", "def f():\n  import counterpoise.engine.step", ["counterpoise.engine.step"]),
        ("methods.x", "if TYPE_CHECKING:\n  from counterpoise.engine import Step", []),
        ("methods.x", "if TYPE_CHECKING:\n  pass\nelse:\n  from ..engine import Step", ["counterpoise.engine.Step"]),
        ("methods.x", "from ..engine.step import Step", ["counterpoise.engine.step.Step"]),
        ("methods.x", "from ..method import Method\nfrom . import y", []),
        ("methods.__init__", "from .x import X\nfrom .. import engine", ["counterpoise.engine"]),
        ("data.x", "from counterpoise import Trainer", ["counterpoise.Trainer"]),
        ("types", "from counterpoise.model import Model", ["counterpoise.model.Model"]),
        ("report.x", "class A:\n  from counterpoise.methods import X", ["counterpoise.methods.X"]),
        ("engine.x", "from counterpoise.methods import X", ["counterpoise.methods.X"]),
        ("engine.x", "import lightning_fabric", []),
        (
            "cli.x",
            "from counterpoise.methods import X\nfrom lightning_fabric import Fabric",
            ["lightning_fabric.Fabric"],
        ),
        ("cli.x", "try:\n  import timm.models\nexcept ImportError:\n  pass", ["timm.models"]),
        ("data.x", "def f():\n  import av", []),
    ],
)
def test_the_rule_sees(module, source, expected):
    found = broken(("counterpoise", *module.split(".")), source)
    assert [line.split(":")[0] for line in found] == expected


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_dependency_rule(module):
    assert module[1] in (*PARTS, *COMMAND, *PRIVATE), "a new part: say in docs/architecture.md what it may import"
    assert broken(module, MODULES[module].read_text()) == []


def test_there_is_no_circle():
    assert {"recipe", "benchmark", "studies", "tuning", "datasets", "analysis", "cli"} <= set(PARTS)
    assert [part for part, seen in PARTS.items() if EVERYTHING in seen] == ["cli"]
    assert not any("cli" in seen for seen in PARTS.values())
    done: set[str] = set()
    while left := {part: set(seen) - done for part, seen in PARTS.items() if part not in done and part != "cli"}:
        free = {part for part, seen in left.items() if not seen}
        assert free, f"a circle among {', '.join(left)}"
        done |= free


def test_the_files_of_the_engine_point_one_way():
    """For types too, and nothing to the trainer."""
    files = {module[2]: module for module in MODULES if module[1] == "engine" and module[2] != "__init__"}
    seen = {
        name: {found.name.split(".")[2] for found in imports(MODULES[module].read_text(), module)
               if found.name.startswith("counterpoise.engine.")}
        for name, module in files.items()
    }  # fmt: skip
    TopologicalSorter(seen).prepare()  # CycleError names a circle
    assert not any("trainer" in names for names in seen.values())


def test_diagnose_needs_no_parser_of_options():
    code = (
        "import sys, counterpoise as cp; cp.diagnose; import counterpoise.studies.diagnosis.page; print(*sys.modules)"
    )
    found = python(code).split()
    assert "counterpoise.studies.diagnosis.runs" in found
    assert [name for name in found if name.split(".")[0] == "jsonargparse" or name.startswith("counterpoise.cli")] == []


@pytest.mark.parametrize("module", MODULES, ids=".".join)
def test_no_file_and_no_function_is_too_long(module):
    source = MODULES[module].read_text()
    assert len(source.splitlines()) <= 400
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_stays_light():
    """One process imports one after the other, as each costs seconds; what is heavy is named beside what brought it."""
    names = (
        "counterpoise",
        "counterpoise.cli",
        "counterpoise.engine",
        "counterpoise.cli.fit",
        "counterpoise.cli.study",
    )
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
    print(*(f"{{name}}: {{m}}" for m in {(*HEAVY, "torchmetrics", "lightning_fabric")} if m in sys.modules))
"""
    assert python(code).split() == []


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_needs_no_library_at_all(argument):
    others = ("torch", "numpy", "scipy", "yaml", "rich", "jsonargparse", "lightning_fabric")
    code = (
        f"import sys, counterpoise.cli as c; c.main([{argument!r}]); print(*(m for m in {others} if m in sys.modules))"
    )
    assert python(code).splitlines()[-1] == ""


@pytest.mark.slow
def test_every_module_imports_on_its_own():
    # Importing a module imports its package first, so there are as many ways in as parts. Forgetting everything
    # before each finds the cycles that only another order of imports would hide.
    names = [".".join(m[:-1] if m[-1] == "__init__" else m) for m in MODULES if m[-1] != "__main__"]
    ways_in = {name: [n for n in names if n.startswith(f"{name}.")] for name in names if name.count(".") <= 1}
    code = f"""
import importlib, sys
def attempt(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{{name}}: {{type(error).__name__}}: {{error}}")
for way, inside in {ways_in}.items():
    for loaded in [m for m in sys.modules if m.split(".")[0] == "counterpoise"]:
        del sys.modules[loaded]
    for name in [way, *inside]:
        attempt(name)
"""
    assert python(code).splitlines() == []
