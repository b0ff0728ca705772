"""Every method x {2, 3 modalities} x the fusions it supports, through the public contract suite."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from counterpoise import methods
from counterpoise.engine import loop
from counterpoise.fusions import Gated, Geodesic, Late, Shared
from counterpoise.method import Method
from counterpoise.testing import (
    CHECKS,
    NAMES,
    accepts_absent,
    assert_same,
    check_method,
    everything,
    runs_in_bf16,
    same_on_replicas,
    trainer_for,
    trains,
)
from multitask import MultiTask

ADDITIVE = ("Concat", "Sum", partial(Late, rule="sum"))
ANY = ("Concat", "Sum", "Late", "Gated", "FiLM", "Attention")
SEPARATE = ("Concat", "Sum", "Late")


class Case(NamedTuple):
    make: Callable[[], Method]
    fusions: tuple[Any, ...]
    neutral: tuple[Callable[[], Method], ...] = ()  # settings under which nothing is left of the method
    leaves: Callable[[], Method] = methods.Joint  # what it then is, bit for bit


CASES = {
    "Unimodal": Case(partial(methods.Unimodal, "first"), (*ANY, "Shared")),
    "Joint": Case(methods.Joint, (*ANY, "Shared", partial(Late, rule="pool"), "Geodesic", "Boosted", "MMTM")),
    "GBlending": Case(
        partial(methods.GBlending, super_epoch=2),
        ANY,
        (partial(methods.GBlending, weights={"fused": 1.0}),),
    ),
    "OGM": Case(
        methods.OGM,
        (*SEPARATE, partial(Gated, heads=True)),
        (partial(methods.OGM, alpha=0), partial(methods.OGM, start=7, end=9)),
    ),
    "OGMGE": Case(methods.OGMGE, SEPARATE, (partial(methods.OGMGE, start=7, end=9),)),
    "DOMFN": Case(methods.DOMFN, ANY),
    "MSES": Case(partial(methods.MSES, patience=1), ANY, (partial(methods.MSES, patience=4, weight=0.0),)),
    "PMR": Case(methods.PMR, ANY, (partial(methods.PMR, alpha=0, mu=0),)),
    "AGM": Case(methods.AGM, ANY, (partial(methods.AGM, alpha=0),)),
    "MSLR": Case(methods.MSLR, ADDITIVE, (partial(methods.MSLR, "keep"), partial(methods.MSLR, "smooth"))),
    "ReconBoost": Case(methods.ReconBoost, (*ADDITIVE, partial(Shared, rule="sum", hidden=(8,)))),
    "SMV": Case(
        partial(methods.SMV, warmup=1),
        ANY,
        (partial(methods.SMV, warmup=9), partial(methods.SMV, "modality", warmup=1, alpha=0)),
    ),
    "MMPareto": Case(methods.MMPareto, ANY),
    "MLA": Case(methods.MLA, ("Shared",)),
    "IGM": Case(
        methods.IGM,
        ("Late", "Shared"),
        (partial(methods.IGM, tau=0.0), partial(methods.IGM, directions=[])),
        partial(methods.IGM, gm=False),
    ),
    "OPM": Case(
        partial(methods.OPM, warmup=0),
        (*SEPARATE, partial(Gated, heads=True)),
        (
            partial(methods.OPM, p=0, warmup=0),
            partial(methods.OPM, q_base=0, warmup=0, p=1),
            partial(methods.OPM, p=1, warmup=4),
        ),
    ),
    "MMCosine": Case(methods.MMCosine, ("Concat", "Sum")),
    "UMT": Case(partial(methods.UMT, teacher_epochs=1), ("Concat", "Late", "Gated"), (partial(methods.UMT, lam=0.0),)),
    "LFM": Case(methods.LFM, ADDITIVE, (partial(methods.LFM, "constant", alpha=0.0),)),
    "ModalityDropout": Case(
        methods.ModalityDropout, ANY, tuple(partial(methods.ModalityDropout, p=p) for p in (0, {}, {"first": 0.0}))
    ),
    "TCMax": Case(methods.TCMax, (*ADDITIVE, "Gated", "Attention")),
    "DGL": Case(methods.DGL, (*ANY, "Shared")),
    "CML": Case(methods.CML, (*ANY, "Shared"), (partial(methods.CML, lam=0, subset_loss=False),)),
    "MBSD": Case(
        methods.MBSD, (*SEPARATE, partial(Gated, heads=True)), (partial(methods.MBSD, rs=0, kd=0),), MultiTask
    ),
    "AMCo": Case(methods.AMCo, (*SEPARATE, partial(Gated, heads=True)), (partial(methods.AMCo, sigma=1.0),), MultiTask),
    "G2D": Case(
        partial(methods.G2D, teacher_epochs=1),
        ("Concat", "Late", "Gated", "Shared"),
        (partial(methods.G2D, alpha=0, beta=0, stage=0),),
    ),
    "ReLearning": Case(
        partial(methods.ReLearning, every=1),
        ANY,
        (partial(methods.ReLearning, lam=0, every=1), partial(methods.ReLearning, times=0, every=1)),
    ),
    "BSS": Case(
        partial(methods.BSS, growth=3),
        ANY,
        tuple(partial(methods.BSS, fused=1, unimodal=1, start=1, growth=growth) for growth in (None, 2)),
        MultiTask,
    ),
    "Aggregated": Case(methods.Aggregated, ANY),
    "IPRM": Case(methods.IPRM, ("Geodesic", partial(Geodesic, single=True))),
    "DataRemixing": Case(
        partial(methods.DataRemixing, warmup=1), ANY, (partial(methods.DataRemixing, unimodal=1, warmup=9),), MultiTask
    ),
    "InfoReg": Case(methods.InfoReg, (*SEPARATE, partial(Gated, heads=True)), (partial(methods.InfoReg, window=1),)),
    "MIDAS": Case(partial(methods.MIDAS, warmup=1), ANY, (partial(methods.MIDAS, lam=0, warmup=0),), MultiTask),
    "DIMML": Case(methods.DIMML, ("Concat", "Gated", "FiLM", "Attention")),
    "AUG": Case(partial(methods.AUG, every=1), ("Boosted",)),
    "Greedy": Case(partial(methods.Greedy, start=0, window=2), ("MMTM",)),
}
# AUG adds up classifiers and losses, DOMFN squares its losses, UMT multiplies a squared distance by 10; attention is
# steep without normalised outputs
GENTLE = {"AUG": 0.01, "DOMFN": 0.01, "UMT": 0.01, "Attention": 0.01}


def _named(fusion: Any) -> str:
    return fusion if isinstance(fusion, str) else "-".join([fusion.func.__name__, *map(str, fusion.keywords.values())])


def _rate(name: str, fusion: Any) -> float:
    return min(GENTLE.get(name, 0.05), GENTLE.get(_named(fusion), 0.05))


def test_every_method_is_here():
    assert set(CASES) == set(methods.__all__)


# what a fusion can break; the rest runs with each method's first fusion
OF_THE_FUSION = (trains, accepts_absent, runs_in_bf16)


def _marks(fusion: Any, check: Callable[..., None], modalities: int, case: Case) -> tuple[pytest.MarkDecorator, ...]:
    """Every run: the first fusion's checks with three modalities, and that all get through; the slow tests the rest."""
    every_run = modalities == 3 and (fusion == case.fusions[0] or check is accepts_absent)
    every_run |= fusion == case.fusions[0] and check is trains
    return () if every_run else (pytest.mark.slow,)


RUNS = [
    pytest.param(
        name,
        fusion,
        check,
        modalities,
        id=f"{name}-{_named(fusion)}-{check.__name__}-{modalities}",
        marks=_marks(fusion, check, modalities, case),
    )
    for name, case in CASES.items()
    for fusion in case.fusions
    for check in CHECKS
    if fusion == case.fusions[0] or check in OF_THE_FUSION
    for modalities in (2, 3)
]


@pytest.mark.parametrize(("name", "fusion", "check", "modalities"), RUNS)
def test_contract(name: str, fusion: Any, check: Callable[..., None], modalities: int):
    make = CASES[name].make
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*below the bound.*")
        check_method(make, modalities=modalities, fusion=fusion, lr=_rate(name, fusion), checks=[check])


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_two(name: str):
    case = CASES[name]
    fusion = case.fusions[0]
    check_method(case.make, modalities=3, fusion=fusion, lr=_rate(name, fusion), checks=[same_on_replicas])


NEUTRAL = [
    pytest.param(name, make, fusion, id=f"{name}-{number}-{_named(fusion)}")
    for name, case in CASES.items()
    for number, make in enumerate(case.neutral)
    for fusion in case.fusions[: 1 if number else 2]
]


@pytest.mark.parametrize(("name", "neutral", "fusion"), NEUTRAL)
def test_a_neutral_setting_leaves_nothing_of_the_method(name, neutral, fusion, monkeypatch):
    monkeypatch.setattr(loop, "select_best", lambda run: False)  # the last weights, however the best are chosen
    heads = CASES[name].make().own_heads

    def left() -> Method:
        method = CASES[name].leaves()
        method.own_heads = heads  # the same model
        return method

    models = []
    for make in (neutral, left):
        trainer, data = trainer_for(make, NAMES[:2], fusion, lr=_rate(name, fusion), epochs=2)
        trainer.fit(data.train, data.val)
        models.append({k: v for k, v in everything(trainer).items() if k.startswith("model.")})
    assert_same(*models)
