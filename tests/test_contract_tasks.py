"""Every method that is defined for labels and numbers x {2, 3 modalities}, through the public contract suite."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from counterpoise.fusions import Late
from counterpoise.task import TASKS, SingleLabel
from counterpoise.testing import CHECKS, accepts_absent, check_method, same_on_replicas, trainer_for, trains
from test_contract import CASES, GENTLE

OTHERS = [kind for kind in TASKS if kind != SingleLabel.kind]
DEFINED = [(name, kind) for name, case in CASES.items() for kind in OTHERS if TASKS[kind] in case.make().tasks]
# numbers that no class bounds give larger gradients than probabilities
RATES = {"regression": 0.02}


def _check(name: str, kind: str, fusion: Any, modalities: int, check: Callable[..., None]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*below the bound.*")
        warnings.filterwarnings("ignore", message="The pool has .* validation samples")
        lr = min(GENTLE.get(name, 0.05), RATES.get(kind, 0.05))
        check_method(CASES[name].make, modalities=modalities, fusion=fusion, lr=lr, kind=kind, checks=[check])


# what a task can break at once; all of it, with two and three modalities, in the slow tests
QUICK = (trains, accepts_absent)
RUNS = [
    pytest.param(check, n, marks=() if n == 3 and check in QUICK else pytest.mark.slow, id=f"{check.__name__}-{n}")
    for check in CHECKS
    for n in (2, 3)
]


@pytest.mark.parametrize(("check", "modalities"), RUNS)
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_contract_of_other_tasks(name: str, kind: str, check: Callable[..., None], modalities: int):
    _check(name, kind, CASES[name].fusions[0], modalities, check)


@pytest.mark.parametrize("check", [pytest.param(trains, marks=pytest.mark.slow), accepts_absent])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("rule", ["mean", "entropy", "sum", "pool"])
def test_every_rule_of_late_fusion(rule: str, kind: str, check: Callable[..., None]):
    _check("Joint", kind, partial(Late, rule=rule), 3, check)


@pytest.mark.parametrize(
    "name", ["OGM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Joint", "MMPareto", "SMV", "IGM"))]
)
@pytest.mark.parametrize("kind", OTHERS)
def test_one_process_equals_two_for_other_tasks(name: str, kind: str):
    _check(name, kind, CASES[name].fusions[0], 3, same_on_replicas)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.make().tasks) == 1])
def test_what_is_about_classes_refuses_other_tasks(name: str, kind: str):
    case = CASES[name]
    with pytest.raises(ValueError, match=rf"is defined for single-label targets; these are {kind}"):
        trainer_for(case.make, fusion=case.fusions[0], kind=kind)
