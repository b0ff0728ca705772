"""Writes the pages of the API reference, one per package, from what the packages say is public.

``docs/conf.py`` calls it before every build; Sphinx then fills the pages in from the docstrings.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parent / "api"
PACKAGES = {
    "counterpoise": "The short way from data to a trained model. The packages below have the parts.",
    "counterpoise.methods": "The training methods. Each has a card: the rule, the paper's values, every deviation.",
    "counterpoise.fusions": "How features or logits of the modalities become one prediction.",
    "counterpoise.encoders": "From a modality's input to a vector of features.",
    "counterpoise.data": "Splits, tables, readers, and what checks them.",
    "counterpoise.engine": "Training: the trainer, its step and run, optimizers, schedules, checkpoints.",
    "counterpoise.functional": "The methods' mathematics on tensors, for a loop of your own: no state, no engine.",
    "counterpoise.integrations": "The methods in loops of others: plain PyTorch, Lightning, Transformers.",
    "counterpoise.metrics": "Scores of whole splits.",
    "counterpoise.losses": "What training minimises, as one number per sample.",
    "counterpoise.task": "What is predicted: one class, several labels, numbers.",
    "counterpoise.report": "Finished runs as one page of HTML.",
    "counterpoise.testing": "The contract suite, for a method of your own.",
}
"""The packages of the reference, and what a page says first."""


def public(package: str) -> list[str]:
    """The public names of a package that are no packages themselves, in alphabetical order."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None)
    if names is None:
        own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == package)
        names = [name for name in own if not name.startswith("_")]
    return sorted((n for n in names if not inspect.ismodule(getattr(module, n))), key=str.casefold)


def page(package: str) -> str:
    """The page of a package, a section per public name."""
    parts = [package, "=" * len(package), "", PACKAGES[package], ""]
    for name in public(package):
        parts += [name, "-" * len(name), "", *section(package, name), ""]
    return "\n".join(parts)


def section(package: str, name: str) -> list[str]:
    """What stands under a name: its directive, or where it is described."""
    value = getattr(importlib.import_module(package), name)
    homes = [p for p in PACKAGES if p != "counterpoise" and name in public(p)]
    if package == "counterpoise" and homes:
        summary = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
        return [summary, "", f"Described in :py:obj:`{homes[0]}.{name}`."]
    if not callable(value):
        return [f".. py:data:: {package}.{name}", "", f"   {documented(package, name)}", "", f"   {contents(value)}"]
    lines = [f".. auto{'class' if inspect.isclass(value) else 'function'}:: {package}.{name}"]
    return (
        [f":doc:`The card of {name} </methods/{name.lower()}>`", "", *lines] if package.endswith("methods") else lines
    )


def documented(package: str, name: str) -> str:
    """The string under the assignment of a constant, wherever in the package that is."""
    root = Path(inspect.getfile(importlib.import_module(package))).parent
    for file in sorted(root.rglob("*.py")):
        for statement, below in pairwise(ast.parse(file.read_text(encoding="utf-8")).body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if name in [t.id for t in targets if isinstance(t, ast.Name)] and isinstance(below, ast.Expr):
                return str(ast.literal_eval(below.value))
    raise ValueError(f"{package}.{name} has no docstring; write one below its assignment.")


def contents(value: object) -> str:
    """What a constant holds, by name."""
    names = sorted(value) if isinstance(value, Collection) and not isinstance(value, str) else [value]
    return "Holds " + ", ".join(f"``{name}``" for name in names) + "."


def write() -> None:
    """Write the pages that have changed, so that a second build is quick, and take away those of other packages."""
    FOLDER.mkdir(exist_ok=True)
    for package in PACKAGES:
        file, text = FOLDER / f"{package}.rst", page(package)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for file in FOLDER.glob("*.rst"):
        if file.stem not in PACKAGES:
            file.unlink()
