"""Every method x {2, 3 modalities} x the fusions it supports, through the public contract suite."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from counterpoise import methods
from counterpoise.fusions import Gated, Late, Shared
from counterpoise.method import Method
from counterpoise.testing import CHECKS, accepts_absent, check_method, runs_in_bf16, same_on_replicas, trains

ADDITIVE = ("Concat", "Sum", partial(Late, rule="sum"))
ANY = ("Concat", "Sum", "Late", "Gated", "FiLM", "Attention")
SEPARATE = ("Concat", "Sum", "Late")

CASES: dict[str, tuple[Callable[[], Method], tuple[Any, ...]]] = {
    "Unimodal": (partial(methods.Unimodal, "first"), (*ANY, "Shared")),
    "Joint": (methods.Joint, (*ANY, "Shared", partial(Late, rule="pool"))),
    "GBlending": (partial(methods.GBlending, super_epoch=2), ANY),
    "OGM": (methods.OGM, (*SEPARATE, partial(Gated, heads=True))),
    "OGMGE": (methods.OGMGE, SEPARATE),
    "DOMFN": (methods.DOMFN, ANY),
    "MSES": (partial(methods.MSES, patience=1), ANY),
    "PMR": (methods.PMR, ANY),
    "AGM": (methods.AGM, ANY),
    "MSLR": (methods.MSLR, ADDITIVE),
    "ReconBoost": (methods.ReconBoost, (*ADDITIVE, partial(Shared, rule="sum", hidden=(8,)))),
    "SMV": (partial(methods.SMV, warmup=1), ANY),
    "MMPareto": (methods.MMPareto, ANY),
    "MLA": (methods.MLA, ("Shared",)),
    "IGM": (methods.IGM, ("Late", "Shared")),
    "OPM": (partial(methods.OPM, warmup=0), (*SEPARATE, partial(Gated, heads=True))),
    "MMCosine": (methods.MMCosine, ("Concat", "Sum")),
    "UMT": (partial(methods.UMT, teacher_epochs=1), ("Concat", "Late", "Gated")),
    "LFM": (methods.LFM, ADDITIVE),
    "ModalityDropout": (methods.ModalityDropout, ANY),
    "TCMax": (methods.TCMax, (*ADDITIVE, "Gated", "Attention")),
    "DGL": (methods.DGL, (*ANY, "Shared")),
    "CML": (methods.CML, (*ANY, "Shared")),
    "MBSD": (methods.MBSD, (*SEPARATE, partial(Gated, heads=True))),
    "AMCo": (methods.AMCo, (*SEPARATE, partial(Gated, heads=True))),
    "G2D": (partial(methods.G2D, teacher_epochs=1), ("Concat", "Late", "Gated", "Shared")),
    "ReLearning": (partial(methods.ReLearning, every=1), ANY),
    "BSS": (partial(methods.BSS, growth=3), ANY),
}
# DOMFN squares its losses, UMT multiplies a squared distance by 10; attention is steep without normalised outputs
GENTLE = {"DOMFN": 0.01, "UMT": 0.01, "Attention": 0.01}


def _named(fusion: Any) -> str:
    return fusion if isinstance(fusion, str) else "-".join([fusion.func.__name__, *map(str, fusion.keywords.values())])


def _rate(name: str, fusion: Any) -> float:
    return min(GENTLE.get(name, 0.05), GENTLE.get(_named(fusion), 0.05))


def test_every_method_is_here():
    assert set(CASES) == set(methods.__all__)


# what a fusion can break; the rest runs with each method's first fusion
OF_THE_FUSION = (trains, accepts_absent, runs_in_bf16)
RUNS = [
    pytest.param(name, fusion, check, id=f"{name}-{_named(fusion)}-{check.__name__}")
    for name, (_, fusions) in CASES.items()
    for fusion in fusions
    for check in CHECKS
    if fusion == fusions[0] or check in OF_THE_FUSION
]


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("name", "fusion", "check"), RUNS)
def test_contract(name: str, fusion: Any, check: Callable[..., None], modalities: int):
    make, _ = CASES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*below the bound.*")
        check_method(make, modalities=modalities, fusion=fusion, lr=_rate(name, fusion), checks=[check])


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_two(name: str):
    make, fusions = CASES[name]
    check_method(make, modalities=3, fusion=fusions[0], lr=_rate(name, fusions[0]), checks=[same_on_replicas])
