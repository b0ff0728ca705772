"""A file of ONNX says what ``Trainer.predict`` says, for every fusion, method, task and encoder, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise import methods
from counterpoise.data import Split
from counterpoise.engine import Trainer
from counterpoise.exporting import Exported, export
from counterpoise.exporting.graph import Graph
from counterpoise.fusions import Late
from counterpoise.method import Method
from counterpoise.task import Regression
from counterpoise.testing import NAMES, trainer_for

pytest.importorskip("onnxruntime")

TAU = 0.001
FUSIONS = (
    "Concat",
    "Sum",
    "Late",
    "Shared",
    "Gated",
    "FiLM",
    "Attention",
    "Geodesic",
    "WideDeep",
    "Boosted",
    "MMTM",
)
RULES = [partial(Late, rule=rule) for rule in ("entropy", "sum", "pool")]
OWN_RULE: dict[str, tuple[Callable[[], Method], Any]] = {
    "Unimodal": (partial(methods.Unimodal, "second"), "Concat"),
    "MLA": (methods.MLA, "Shared"),
    "MLA-released": (partial(methods.MLA, mode="released"), "Shared"),
    "DOMFN": (partial(methods.DOMFN, tau=TAU), "Concat"),
    "DOMFN-fused": (partial(methods.DOMFN, tau=TAU, reference="fused", score="sigmoid"), "Concat"),
    "MMCosine": (methods.MMCosine, "Concat"),
    "ReconBoost": (partial(methods.ReconBoost, initial_rate=0.7), "Sum"),
    "IPRM": (methods.IPRM, "Geodesic"),
    "AUG": (partial(methods.AUG, every=1), "Boosted"),
}
"""Methods that predict otherwise than by the fused logits."""
OTHERS = sorted(set(methods.__all__) - {name.split("-")[0] for name in OWN_RULE})


def said(split: Split, trainer: Trainer) -> dict[str, Tensor]:
    """What the engine predicts, by the names of a file."""
    task, found = trainer.model.task, trainer.predict(split)
    kinds = {"probabilities": task.predictions, "logits": lambda logits: logits}
    if isinstance(task, Regression):
        kinds = {"numbers": task.predictions}
    return {f"{part}.{kind}": f(u) for part, u in found.named().items() for kind, f in kinds.items()}


def given(split: Split, modalities: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs that hold NaN where a sample is absent, and masks of those modalities that some sample lacks."""
    inputs = {m: split.batch(range(len(split)), m, None) for m in modalities}
    present = {m: mask for m, mask in (split.present or {}).items() if m in modalities}
    for m, mask in present.items():
        if inputs[m].is_floating_point():
            inputs[m][~mask] = torch.nan
    return inputs, present


def assert_agrees(trainer: Trainer, split: Split, run: Callable[[Any, Any], Mapping[str, Any]]) -> None:
    """On batches of 1, 3 and 17."""
    reads = trainer.method.reads(trainer.model.modalities)
    for size in (1, 3, 17):
        some = split.subset(range(size))
        wanted, got = said(some, trainer), run(*given(some, reads))
        assert wanted.keys() == got.keys()
        for name, want in wanted.items():
            value = torch.as_tensor(got[name])
            assert value.dtype == want.dtype
            torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5, msg=f"{name} {size}: {value - want}")


def by_graph(trainer: Trainer) -> Callable[[Any, Any], Mapping[str, Any]]:
    """What is exported, before it is."""
    graph = Graph(trainer.model, trainer.method)

    def run(inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        everyone = {m: torch.ones(len(x), dtype=torch.bool) for m, x in inputs.items()}
        return graph(inputs, {**everyone, **present})

    return run


def by_file(trainer: Trainer, split: Split, path: Path) -> Exported:
    return Exported(export(trainer.model, trainer.method, path, split))


def trained(make: Callable[[], Method], fusion: Any, modalities: int, **options: Any) -> tuple[Trainer, Split]:
    trainer, data = trainer_for(make, NAMES[:modalities], fusion, absent=0.3, epochs=2, **options)
    trainer.fit(data.train, data.val)
    assert data.train.subset(range(3)).present is not None
    return trainer, data.train


def each(names: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Cases of which a file is made in seconds each; ``quick`` ones stay in the default run."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow, id=named(n)) for n in names]


def named(fusion: Any) -> str:
    return fusion if isinstance(fusion, str) else "-".join(["Late", *fusion.keywords.values()])


@pytest.mark.filterwarnings("ignore:DOMFN's gate|The pool has|ReconBoost had no epoch")
class TestEveryFusion:
    @pytest.mark.parametrize("modalities", [2, 3])
    @pytest.mark.parametrize("fusion", [*FUSIONS, *RULES], ids=named)
    def test_the_graph(self, fusion, modalities):
        trainer, split = trained(methods.Joint, fusion, modalities)
        assert_agrees(trainer, split, by_graph(trainer))

    @pytest.mark.parametrize("modalities", [3, pytest.param(2, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("fusion", each([*FUSIONS, *RULES], ["Attention"]))
    def test_the_file(self, fusion, modalities, tmp_path):
        trainer, split = trained(methods.Joint, fusion, modalities)
        assert_agrees(trainer, split, by_file(trainer, split, tmp_path / "model.onnx"))


@pytest.mark.filterwarnings("ignore:DOMFN's gate|The pool has|ReconBoost had no epoch")
class TestEveryMethod:
    def rule(self, name: str) -> tuple[Callable[[], Method], Any]:
        return OWN_RULE[name] if name in OWN_RULE else (getattr(methods, name), None)

    @pytest.mark.parametrize("modalities", [2, 3])
    @pytest.mark.parametrize("name", [*OWN_RULE, *OTHERS])
    def test_the_graph(self, name, modalities):
        trainer, split = trained(*self.rule(name), modalities)
        assert_agrees(trainer, split, by_graph(trainer))

    @pytest.mark.parametrize("name", each([*OWN_RULE, *OTHERS], ["DOMFN"]))
    def test_the_file(self, name, tmp_path):
        trainer, split = trained(*self.rule(name), 3)
        exported = by_file(trainer, split, tmp_path / "model.onnx")
        assert_agrees(trainer, split, exported)
        assert exported.modalities == trainer.method.reads(trainer.model.modalities)
        assert exported.facts["method"] == trainer.method.label

    def test_the_gate_is_open_for_some(self):
        """Else the cases of DOMFN would test one branch."""
        trainer, split = trained(*OWN_RULE["DOMFN"], 3)
        fused, *alone = trainer.predict(split).named().values()
        closed = torch.stack([(fused == u).all(1) for u in alone]).any(0)
        assert 0.1 < closed.float().mean() < 0.9


@pytest.mark.filterwarnings("ignore:The pool has")
@pytest.mark.parametrize("kind", ["multi-label", "regression"])
class TestEveryTask:
    @pytest.mark.parametrize("fusion", ["Concat", "Late", *RULES], ids=named)
    def test_the_graph(self, kind, fusion):
        trainer, split = trained(methods.Joint, fusion, 3, kind=kind)
        assert_agrees(trainer, split, by_graph(trainer))

    @pytest.mark.parametrize("fusion", each(["Concat", "Late", *RULES], ["Concat"]))
    def test_the_file(self, kind, fusion, tmp_path):
        trainer, split = trained(methods.Joint, fusion, 3, kind=kind)
        exported = by_file(trainer, split, tmp_path / "model.onnx")
        assert_agrees(trainer, split, exported)
        assert exported.task == trainer.model.task
