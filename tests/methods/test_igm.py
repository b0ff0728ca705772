from __future__ import annotations

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from counterpoise.data.arrays import from_arrays
from counterpoise.engine import Observer, Run
from counterpoise.fusions import Shared
from counterpoise.method import Method
from counterpoise.methods._mixup import draw_mix
from counterpoise.methods._turns import predecessors, stage_epochs
from counterpoise.methods.igm import IGM
from counterpoise.testing import (
    NAMES,
    accepts_absent,
    assert_same,
    check_method,
    resumes_exactly,
    same_on_replicas,
    trainer_for,
)


class Watch(Observer):
    """Model state at the start and after every epoch, and what trained in it."""

    def __init__(self):
        self.states, self.phases, self.matrices = [], [], []

    def _keep(self, trainer):
        self.states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})

    def on_fit_start(self, trainer):
        self._keep(trainer)

    def on_epoch_end(self, trainer, record):
        self._keep(trainer)
        self.phases.append(trainer.phase)
        self.matrices.append({k: v.clone() for k, v in trainer.method.state_dict().items()})


def run(method, modalities=2, fusion=None, **options):
    watch = Watch()
    options = {"epochs": 2, **options}
    trainer, data = trainer_for(lambda: method, NAMES[:modalities], fusion, observers=[watch], **options)
    trainer.fit(data.train, data.val)
    return watch


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# -- invariants ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("other", [IGM(gm=False), IGM(directions=[])], ids=["gm off", "no direction"])
def test_nothing_is_collected_where_nothing_is_projected(other):
    assert run(other).matrices[-1] == {}


def test_modification_starts_with_the_second_stage():
    on, off = run(IGM(tau=3.0, stages=[2, 1])), run(IGM(stages=[2, 1], gm=False))
    assert_same(on.states[2], off.states[2])
    assert any("second.0.weight" in name for name in moved(on.states[3], off.states[3]))


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_a_stage_moves_one_branch_and_nothing_else(modalities):
    watch = run(IGM(), modalities)
    assert [phase.train for phase in watch.phases] == [(m,) for m in NAMES[:modalities]] * 2
    for epoch, phase in enumerate(watch.phases):
        changed = moved(watch.states[epoch], watch.states[epoch + 1])
        (m,) = phase.train
        assert changed
        assert all(f".{m}." in name for name in changed)


def test_with_a_shared_head_the_other_encoders_stand_still():
    watch = run(IGM(), 3, "Shared")
    for epoch, phase in enumerate(watch.phases):
        changed = moved(watch.states[epoch], watch.states[epoch + 1])
        assert all(f".{phase.train[0]}." in name or name.startswith("fusion.head") for name in changed)
    assert set(watch.matrices[-1]) == {f"matrices.{m}:head" for m in NAMES[:3]}


@pytest.mark.parametrize("statistic", ["batch_mean", "sample"])
def test_matrices_are_symmetric_bounded_and_not_trivial(statistic):
    watch = run(IGM(tau=1.5, statistic=statistic), 3)
    assert len(watch.matrices[-1]) == 9
    for T in watch.matrices[-1].values():
        values = torch.linalg.eigvalsh(T.double())
        assert torch.equal(T, T.T)
        assert values.min() == pytest.approx(torch.exp(torch.tensor(-1.5)).item(), abs=1e-5)
        assert values.max() == pytest.approx(1.0, abs=1e-5)


def test_only_the_modality_before_acts():
    watch = run(IGM(), 3)
    identity = {k for k, T in watch.matrices[0].items() if torch.equal(T, torch.eye(len(T)))}
    assert identity == set(watch.matrices[0])
    for epoch in range(1, 6):
        changed = {k.split(".")[1].split(":")[0] for k in moved(watch.matrices[epoch - 1], watch.matrices[epoch])}
        assert changed == set(watch.phases[epoch].train)


def test_matrices_do_not_depend_on_the_branch_they_act_on():
    def matrices(scale):
        trainer, data = trainer_for(lambda: IGM(stages=[1, 1]), NAMES[:2])
        with torch.no_grad():
            for p in trainer.model.parameters_of("second"):
                p *= scale
        trainer.fit(data.train, data.val)
        return {k: v for k, v in trainer.method.state_dict().items() if "second:" in k}

    assert_same(matrices(1.0), matrices(0.5))


def test_two_modalities_and_an_order_of_their_own():
    watch = run(IGM(order=["third", "first", "second"]), 3, epochs=1)
    assert [phase.train[0] for phase in watch.phases] == ["third", "first", "second"]
    assert [phase.name for phase in run(IGM()).phases] == ["first 1", "second 1", "first 2", "second 2"]


def test_statistic_leaves_absent_samples_out():
    """Absent samples enter neither side: dropping them from the data gives the same matrix."""
    y = torch.arange(40) % 2
    x = {m: torch.randn(40, 6, generator=torch.Generator().manual_seed(i)) for i, m in enumerate(NAMES[:2])}
    present, split = {"first": torch.arange(40) % 4 != 0}, np.array(["train"] * 36 + ["val"] * 4)
    found = []
    for masks, rows in ((present, slice(None)), (None, present["first"].numpy())):
        train = from_arrays({m: v[rows] for m, v in x.items()}, y[rows], split=split[rows], present=masks).train
        trainer, _ = trainer_for(lambda: IGM(stages=[1, 1]), NAMES[:2], batch_size=27)
        trainer.current.open(train, None)
        trainer.method.setup(trainer.current)
        trainer.method._measure(trainer.current, "first", "second")
        found.append({k: v.clone() for k, v in trainer.method.state_dict().items()})
    assert found[0].keys() == found[1].keys()
    for name, T in found[0].items():
        torch.testing.assert_close(T, found[1][name], rtol=0, atol=1e-5)


def test_best_weights_are_reloaded_only_when_asked(monkeypatch):
    calls = []
    monkeypatch.setattr(Run, "load_best", lambda self: calls.append(self.epoch))
    run(IGM())
    assert calls == []
    run(IGM(reload_best=True))
    assert calls == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "fusion", "modalities"),
    [
        pytest.param(
            lambda: IGM(scope=1.0, statistic="sample", mixup=0.5), None, 3, marks=pytest.mark.slow, id="wide scope"
        ),
        pytest.param(lambda: IGM(reload_best=True), "Shared", 2, id="shared head"),
        pytest.param(IGM.released, None, 2, id="released"),
        pytest.param(lambda: IGM(sam="off"), None, 4, marks=pytest.mark.slow, id="four"),
    ],
)
def test_variants_resume_and_accept_absent_samples(make, fusion, modalities):
    check_method(make, modalities=modalities, fusion=fusion, checks=[accepts_absent, resumes_exactly])


# -- stages and directions -------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 3, 4])
def test_default_stages_give_every_modality_the_budget(count):
    for budget in range(1, 25):
        stages = stage_epochs(None, budget, count)
        assert [sum(stages[m::count]) for m in range(count)] == [budget] * count
        assert len(stages) == (2 * count if budget >= 2 else count)
        assert max(stages) - min(stages) <= 1
        assert stages == sorted(stages, reverse=True)
    assert stage_epochs([3, 1, 2, 5], 100, 2) == [3, 1, 2, 5]


def test_given_stages_go_round_the_order():
    assert [p.train[0] for p in run(IGM(stages=[2, 1, 1])).phases] == ["first", "first", "second", "first"]


def test_directions():
    assert predecessors(("a", "b"), None) == [("b", "a"), ("a", "b")]
    assert predecessors(("a", "b", "c"), ["c -> a"]) == [("c", "a")]
    assert predecessors(("my sound", "c"), ["my sound -> c"]) == [("my sound", "c")]
    watch = run(IGM(directions=["first->second"]))
    assert all("second:" in name for name in watch.matrices[-1])
    free = run(IGM(gm=False))
    assert_same(watch.states[1], free.states[1])
    assert any(".second." in name for name in moved(watch.states[2], free.states[2]))


# -- mixup, presets --------------------------------------------------------------------------------------
def test_mixup_draws_from_the_generator_and_never_mixes_tokens():
    x, g = torch.randn(6, 3), torch.Generator().manual_seed(0)
    mix = draw_mix(x, 1.0, g)
    assert 0 <= mix.share <= 1
    torch.testing.assert_close(mix.inputs(x)[2], mix.share * x[2] + (1 - mix.share) * x[mix.order[2]])
    again = draw_mix(x, 1.0, torch.Generator().manual_seed(0))
    assert mix.share == again.share
    assert torch.equal(mix.order, again.order)
    assert draw_mix(torch.ones(4, 3, dtype=torch.int64), 1.0, g) is None
    assert draw_mix(x, 0.0, g) is None
    assert len({draw_mix(x, 1.0, g).share for _ in range(5)}) == 5


def test_mixup_per_modality_touches_only_that_modality():
    with_, without = run(IGM(mixup={"second": 1.0}, gm=False)), run(IGM(gm=False))
    assert_same(with_.states[1], without.states[1])
    assert any(".second." in name for name in moved(with_.states[2], without.states[2]))


def test_presets():
    paper, released = IGM.paper(), IGM.released([2, 2])
    assert (paper.rho, paper.sam, paper.mixup, paper.reload_best, paper.tau) == (1e-10, "paper", 0.0, False, 0.4)
    assert (released.sam, released.flat_ratio, released.mixup, released.stages) == ("released", 0.3, 1.0, [2, 2])
    assert released.reload_best
    with pytest.warns(UserWarning, match="rho=1e-10 changes only"):
        run(IGM.paper())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["counterpoise.methods.igm.IGM.released", "--m.stages=[1,2]"], {"sam": "released", "stages": [1, 2]}),
        (["counterpoise.methods.igm.IGM.paper"], {"rho": 1e-10, "sam": "paper"}),
        (["counterpoise.methods.igm.IGM", "--m.scope=0.3"], {"scope": 0.3}),
        (["counterpoise.methods.igm.IGM", "--m.scope=head"], {"scope": "head"}),
        (["counterpoise.methods.igm.IGM", "--m.scope=[head.0,encoder.3]"], {"scope": ["head.0", "encoder.3"]}),
        (["counterpoise.methods.igm.IGM", '--m.rho={"a":0.1}'], {"rho": {"a": 0.1}}),
        (["counterpoise.methods.igm.IGM", "--m.directions=[a->b]"], {"directions": ["a->b"]}),
    ],
)
def test_arguments_come_through_the_command_line(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--m", type=Method)
    method = parser.instantiate(parser.parse_args(["--m", *arguments])).m
    assert isinstance(method, IGM)
    assert {name: getattr(method, name) for name in expected} == expected


# -- what is refused -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": -0.1}, "tau must be"),
        ({"rho": -1e-3}, "rho must be"),
        ({"rho": {"first": -1.0}}, "rho must be"),
        ({"mixup": -1.0}, "mixup must be"),
        ({"flat_ratio": 1.1}, "flat_ratio must be"),
        ({"stages": [1, 0]}, "stages must be"),
        ({"statistic": "batchmean"}, "Did you mean 'batch_mean'"),
        ({"sam": "official"}, "paper"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        IGM(**arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({"order": ["first", "secnd"]}, {}, "order: .*Did you mean 'second'"),
        ({"order": ["first"]}, {}, "every modality once"),
        ({"stages": [3]}, {}, "stages must be at least 2"),
        ({"directions": ["first->third"]}, {}, "directions: "),
        ({"scope": ["head.9"]}, {}, "scope: Unknown layer 'head.9'"),
        ({"scope": "heads"}, {}, "scope: Unknown layer 'heads'.*Did you mean 'head'"),
        ({"scope": 1.5}, {}, "scope must be"),
        ({"rho": {"first": 0.1}}, {}, "rho must name every modality"),
        ({"mixup": {"frist": 0.1}}, {}, "mixup: .*Did you mean 'first'"),
        ({}, {"sam": 0.05}, "IGM has a radius of its own.*rho"),
        ({}, {"fusion": "Concat"}, "fusion=Concat. Use fusion=Late"),
        ({}, {"fusion": lambda dims, classes, heads=False: Shared(dims, classes, heads=True)}, "heads=False"),
    ],
)
def test_what_does_not_fit_the_model(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        run(IGM(**arguments), **options)


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="at least 2 modalities"):
        run(IGM(), 1)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["batch_mean", "sample"])
def test_two_processes_build_the_matrices_of_one(statistic):
    same_on_replicas(lambda: IGM(scope=1.0, statistic=statistic), NAMES[:3], None)
