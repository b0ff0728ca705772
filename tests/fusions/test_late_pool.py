import copy
import warnings

import pytest
import torch
from torch.nn import functional as F

from counterpoise import build_model
from counterpoise.encoders import MLP
from counterpoise.functional import fit_pool, pooled
from counterpoise.fusions import Concat, Late, Shared
from counterpoise.fusions.pool import ExpertPool
from counterpoise.task import SingleLabel
from counterpoise.types import Output

torch.set_num_threads(1)

DIMS = {"a": 3, "b": 3, "c": 3}


def draw(n=60, seed=0, classes=3):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    clear = {"a": 2.0, "b": 1.0, "c": 0.3}
    return {m: k * F.one_hot(y, classes) + torch.randn(n, classes, generator=g) for m, k in clear.items()}, y


@pytest.mark.parametrize("cls", [Late, Shared])
def test_before_the_fit_late_is_the_mean_of_log_probabilities(cls):
    fusion, z = cls(DIMS, 3, rule="pool"), {m: torch.randn(4, 3) for m in DIMS}
    logits, unimodal = fusion(z)
    mean = torch.stack([u.log_softmax(-1) for u in unimodal.values()]).mean(0)
    torch.testing.assert_close(logits, mean.log_softmax(-1))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())


def test_the_fit_is_that_of_the_function_is_stored_and_can_be_undone():
    fusion, (u, y) = Late(DIMS, 3, rule="pool", hidden=()), draw()
    before = copy.deepcopy(fusion.state_dict())
    present = {"a": torch.arange(60) % 4 > 0}
    assert fusion.calibrate(u, y, present)
    there = torch.stack([present["a"], torch.ones(60).bool(), torch.ones(60).bool()])
    expected = fit_pool(torch.stack(list(u.values())), y, there)
    for mine, value in zip(fusion.pool.values, expected, strict=True):
        torch.testing.assert_close(mine, value.float())
    again = Late(DIMS, 3, rule="pool", hidden=())
    again.load_state_dict(fusion.state_dict())
    z = {m: torch.randn(4, 3) for m in DIMS}
    assert torch.equal(again(z)[0], fusion(z)[0])
    fusion.pool.reset()
    assert all(torch.equal(before[name], value) for name, value in fusion.state_dict().items())


def test_a_fitted_pool_takes_any_subset_in_any_order():
    fusion, (u, y) = Late(DIMS, 3, rule="pool"), draw()
    fusion.calibrate(u, y)
    fresh, _ = draw(8, seed=1)
    pool = fusion.pool.values
    for names in (("a",), ("c", "a"), ("b", "c", "a")):
        rows = ["abc".index(m) for m in names]
        some = pool._replace(temperature=pool.temperature[rows], weight=pool.weight[rows], loss=pool.loss[rows])
        expected = pooled(some, torch.stack([fresh[m] for m in names]))
        torch.testing.assert_close(fusion.combine({m: fresh[m] for m in names}), expected)
        there = {m: torch.full((8,), m in names) for m in "abc"}
        torch.testing.assert_close(fusion.combine(fresh, there), expected)


def test_modalities_that_were_not_read_count_as_absent():
    fusion, (u, y) = Late(DIMS, 3, rule="pool"), draw()
    fusion.calibrate({"b": u["b"]}, y)  # nothing is said of the others
    pool = fusion.pool.values
    assert pool.temperature[1] != 1
    assert pool.temperature[[0, 2]].tolist() == [1, 1]
    assert pool.weight.tolist() == pytest.approx([1 / 3] * 3)


def test_other_rules_have_nothing_to_fit():
    u, y = draw()
    assert not Late(DIMS, 3).calibrate(u, y)
    assert not Concat(DIMS, 3).calibrate(u, y)


def test_the_rule_that_went_says_what_came():
    with pytest.raises(ValueError, match="rule='calibrated' is no more: rule='pool' takes its place"):
        Late(DIMS, 3, rule="calibrated")


def test_shared_cannot_be_pooled_beside_heads_of_its_own():
    with pytest.raises(ValueError, match=r"heads=False, or pool .* build_model\(..., pool=True\)"):
        Shared(DIMS, 3, rule="pool", heads=True)


# -- what is said ----------------------------------------------------------------------------------------------------


def warned(u, y, present=None, read=None):
    pool = ExpertPool(tuple(u), SingleLabel(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool.fit({m: u[m] for m in read or u}, y, present)
    text = " ".join(str(w.message) for w in caught)
    return text.removeprefix("The pool has ").removesuffix(".").split("; ") if text else []


def test_nothing_is_said_when_everything_was_fitted():
    assert warned(*draw()) == []
    assert warned(*draw(), read=("a", "b")) == []


def test_too_few_samples_are_said():
    assert warned(*draw(9)) == [
        "9 validation samples to be fitted on: 10 are needed, so its weights are equal and its temperatures 1"
    ]


def test_no_expert_of_use_is_said():
    u, y = draw()
    u["a"][:], u["b"][:], u["c"][:] = torch.nan, 1.0, 0.5
    assert warned(u, y) == [
        "0 validation samples to be fitted on: 10 are needed, so its weights are equal and its temperatures 1",
        "'a' has logits that are not finite in 60 samples and drops out there",
        "'b' says the same of every sample",
        "'c' says the same of every sample",
    ]


def test_what_drops_out_is_said():
    u, y = draw()
    u["a"][:3, 1], u["b"][:], u["c"][:] = torch.inf, torch.nan, 0.5
    assert warned(u, y) == [
        "57 validation samples to be fitted on: 'a' has logits that are not finite in 3 samples and drops out there",
        "'b' has logits that are not finite in 60 samples and drops out there",
        "'c' says the same of every sample and gets weight 0",
    ]


def test_few_samples_of_an_expert_and_classes_without_one_are_said():
    u, y = draw()
    keep = y != 1
    u, y = {m: v[keep] for m, v in u.items()}, y[keep]
    present = {"a": torch.arange(40) < 9, "b": torch.zeros(40, dtype=torch.bool)}
    assert warned(u, y, present) == [
        "40 validation samples to be fitted on: 'a' is there for 9 samples, so its temperature stays 1",
        "'b' is there for 0 samples, so its temperature stays 1",
        "none has class number 1, whose bias stays 0",
    ]


# -- the pool of a model: fused and unimodal predictions -------------------------------------------------------------


def model(fusion="Concat", **options):
    torch.manual_seed(0)
    return build_model({m: MLP(4, (), 3) for m in DIMS}, fusion, num_classes=3, **options)


def test_a_model_predicts_by_the_pool_of_its_fused_and_unimodal_predictions():
    m, (u, y) = model(heads=True, pool=True), draw()
    fused = torch.stack(list(u.values())).sum(0)
    output = Output(fused, u, {}, None)
    torch.testing.assert_close(m.read_out(output), fused.log_softmax(-1))  # before the fit
    assert m.calibrate(output, y)
    expected = fit_pool(torch.stack([fused, *u.values()]), y)
    for mine, value in zip(m.pool.values, expected, strict=True):
        torch.testing.assert_close(mine, value.float())
    torch.testing.assert_close(m.read_out(output), pooled(expected, torch.stack([fused, *u.values()])).float())
    m.uncalibrate()
    torch.testing.assert_close(m.read_out(output), fused.log_softmax(-1))


def test_an_absent_modality_drops_out_of_the_pool_of_a_model():
    m, (u, y) = model(heads=True, pool=True), draw()
    fused = torch.stack(list(u.values())).sum(0)
    m.calibrate(Output(fused, u, {}, None), y)
    absent = m.read_out(Output(fused, u, {}, {"b": torch.zeros(60, dtype=torch.bool)}))
    del u["b"]
    torch.testing.assert_close(absent, m.read_out(Output(fused, u, {}, None)))


def test_without_a_pool_the_fused_prediction_is_read_out_and_nothing_is_stored():
    m, (u, y) = model(), draw()
    output = Output(u["a"], u, {}, None)
    assert m.read_out(output) is output.logits
    assert not m.calibrate(output, y)
    assert not any("pool" in name for name in m.state_dict())


def test_a_pool_has_no_parameters_and_no_owner():
    m = model("Late", pool=True)
    assert len(list(m.pool.parameters())) == 0
    assert all(m.pool not in m.modules_of(name) for name in DIMS)


def test_a_pool_of_a_pool_is_refused():
    with pytest.raises(ValueError, match="fusion Late is a pool of the latter already"):
        build_model({m: MLP(4, (), 3) for m in DIMS}, Late(DIMS, 3, rule="pool"), num_classes=3, pool=True)
