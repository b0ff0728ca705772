import pytest
import torch
import torch.nn.functional as F
from one_step import first_step

from counterpoise.method import Method
from counterpoise.methods.domfn import DOMFN
from counterpoise.testing import CHECKS, NAMES, assert_same, check_method, everything, trainer_for
from counterpoise.types import Output

TWO = NAMES[:2]


def test_three_modalities_with_the_fused_reference():
    check_method(lambda: DOMFN(reference="fused", closed_gate="penalised"), modalities=3, checks=CHECKS[:1])


def fitted(make, **options):
    trainer, data = trainer_for(make, TWO, **options)
    trainer.fit(data.train, data.val)
    return trainer


@pytest.mark.filterwarnings("ignore:Half had no epoch that may be selected")
def test_pretraining_is_the_sum_of_the_unimodal_losses():
    class Uni(Method):
        info = DOMFN.info
        own_heads = True

        def loss(self, output, step):
            return torch.stack([step.losses(output.unimodal[m]) for m in TWO]).sum(0).mean()

    names = []

    class Watching(DOMFN):
        def step(self, step):
            names.append((step.epoch, step.phase.name))
            return super().step(step)

    fitted(lambda: Watching(pretrain=0.5))
    assert dict(names) == {0: "pretrain", 1: "pretrain", 2: "fit", 3: "fit"}

    class Half(Watching):
        def phase(self, index, trainer):
            return super().phase(index, trainer) if index == 0 else None

    alone, uni = fitted(lambda: Half(pretrain=0.5)), fitted(Uni, epochs=2)
    assert_same(everything(alone), everything(uni))


def test_pretraining_rounds_and_leaves_an_epoch():
    trainer, _ = trainer_for(lambda: DOMFN(), TWO, epochs=1)
    assert trainer.method.phase(0, trainer.current).name == "fit"
    assert trainer.method.phase(1, trainer.current) is None
    trainer, _ = trainer_for(lambda: DOMFN(pretrain=0.99), TWO, epochs=3)
    assert [trainer.method.phase(i, trainer.current).epochs for i in range(2)] == [2, 1]
    trainer, _ = trainer_for(lambda: DOMFN(), TWO, epochs=115)
    assert [trainer.method.phase(i, trainer.current).epochs for i in range(2)] == [15, 100]


def test_batch_gradient_is_the_mean_of_single_sample_gradients():
    """The published loop takes one sample at a time; so the batch must be their mean."""
    checked = []

    class Checked(DOMFN):
        def loss(self, output, step):
            total = super().loss(output, step)
            if not checked:
                checked.append(True)
                single = []
                for i, y in enumerate(step.batch.target):
                    q = [F.softmax(output.unimodal[m][i].double(), -1) for m in TWO]
                    r = sum(q) / len(q)
                    d = [(p - r).square().max() for p in q]
                    own = [-p[y].log() for p in q]
                    fused = -F.log_softmax(output.logits[i].double(), -1)[y]
                    if all(float(e.detach()) / self.tau < self.gamma for e in d):
                        single.append(sum(v * v / 2 - self.eta * e + v for v, e in zip(own, d, strict=True)) + fused)
                    else:
                        single.append(sum(own))
                expected = torch.stack(single).mean()
                torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
                params = list(step.model.parameters())
                got = torch.autograd.grad(total, params, retain_graph=True)
                want = torch.autograd.grad(expected, params, retain_graph=True)
                for a, b in zip(got, want, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
            return total

    fitted(lambda: Checked(pretrain=0.0, tau=0.02), norm=False, epochs=1)
    assert checked


def test_released_scores_are_sigmoids_and_losses_are_taken_of_them():
    """One sample after the other in float64, in both phases."""
    checked = set()

    class Checked(DOMFN):
        def loss(self, output, step):
            total, expected = super().loss(output, step), []
            for i, y in enumerate(step.batch.target):
                q = [output.unimodal[m][i].double().sigmoid() for m in TWO]
                own = [-torch.log(p[y].exp() / p.exp().sum()) for p in q]
                d = [(p - sum(q) / 2).square().max() for p in q]
                f = output.logits[i].double().sigmoid()
                opened = all(float(e.detach()) / self.tau < self.gamma for e in d)
                if step.phase.name == "pretrain" or not opened:
                    expected.append(sum(own))
                else:
                    penalised = sum(v * v / 2 - self.eta * e for v, e in zip(own, d, strict=True))
                    expected.append(penalised + sum(own) - torch.log(f[y].exp() / f.exp().sum()))
                checked.add((step.phase.name, opened))
            torch.testing.assert_close(total.double(), sum(expected) / len(expected), rtol=1e-5, atol=1e-6)
            return total

    trainer = fitted(lambda: Checked(score="sigmoid", tau=0.01, pretrain=0.5), epochs=2)
    assert {("pretrain", True), ("fit", True), ("fit", False)} <= checked
    a, b = torch.tensor([[3.0, 2.9, 2.9]]), torch.tensor([[0.0, 2.0, -9.0]])  # surest by softmax: b; by sigmoid: a
    one, fused = torch.ones(1, 5), torch.zeros(1, 3)
    output = Output(fused, {"first": a, "second": b}, {"first": one, "second": one})
    assert torch.equal(trainer.method.predict(output, trainer.model), a)
    assert torch.equal(DOMFN(tau=0.01).predict(output, trainer.model), b)


def test_closed_gate_gives_the_fused_head_no_gradient():
    found = []

    class Checked(DOMFN):
        def modulate(self, output, step):
            grads = [step.model.fusion.blocks[m].weight.grad for m in TWO] + [step.model.fusion.bias.grad]
            found.append(max(float(g.abs().max()) for g in grads))
            heads = [step.model.fusion.own_heads[m].weight.grad for m in TWO]
            assert min(float(g.abs().max()) for g in heads) > 0

    fitted(lambda: Checked(pretrain=0.0, gamma=1e-12), epochs=1)
    assert found
    assert max(found) == 0.0
    found.clear()
    with pytest.warns(UserWarning, match="never closes"):
        fitted(lambda: Checked(pretrain=0.0, tau=1.0), epochs=1)
    assert min(found) > 0.0


def test_an_absent_modality_has_no_loss_and_does_not_diverge():
    trainer, step = first_step(lambda: DOMFN(tau=0.005), TWO, absent=0.35)
    output = trainer.method(step)
    total, closed = 0.0, 0
    for i, y in enumerate(step.batch.target):
        u = [output.unimodal[m][i].double() for m in TWO if step.present(m)[i]]
        own = torch.stack([-x.log_softmax(0)[y] for x in u])
        q = torch.stack([x.softmax(0) for x in u])
        d = (q - q.mean(0)).square().amax(1)
        closed += int((d >= 0.8 * 0.005).any())
        fused = -output.logits[i].double().log_softmax(0)[y]
        total += own.sum() + (d < 0.8 * 0.005).all() * ((own.square() / 2 - 0.5 * d).sum() + fused)
    assert 0 < closed < len(step.batch.target)
    torch.testing.assert_close(trainer.method.loss(output, step).double(), total / len(step.batch.target))


def test_prediction_takes_the_fused_head_or_the_surest_modality():
    trainer, _ = trainer_for(DOMFN, TWO)
    agree, surer = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 9.0, 0.0])
    fused = torch.tensor([[0.0, 0.0, 1.0]] * 4)
    unimodal = {"first": torch.stack([agree, agree, surer, agree]), "second": torch.stack([agree, surer, agree, surer])}
    silent = dict.fromkeys(unimodal, torch.zeros(4, 5))  # a feature of zeros is a feature
    output = Output(fused, unimodal, silent, {"second": torch.tensor([True, True, True, False])})
    predicted = trainer.method.predict(output, trainer.model)
    assert torch.equal(predicted[0], fused[0])  # they agree
    assert torch.equal(predicted[1], surer)  # they do not: the second is surer
    assert torch.equal(predicted[2], surer)  # ... the first is
    assert torch.equal(predicted[3], fused[3])  # the second is absent: one modality agrees with itself


def test_ties_go_to_the_first_modality():
    trainer, _ = trainer_for(DOMFN, TWO)
    a, b = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 9.0, 0.0]])
    one = torch.ones(1, 5)
    output = Output(torch.zeros(1, 3), {"first": a, "second": b}, {"first": one, "second": one})
    assert torch.equal(trainer.method.predict(output, trainer.model), a)


def test_a_gate_that_cannot_close_is_reported():
    with pytest.warns(UserWarning, match=r"0\.4.*never|never.*0\.4"):
        fitted(lambda: DOMFN(tau=0.5), epochs=1)
    fitted(lambda: DOMFN(tau=0.5, reference="fused"), epochs=1)  # warnings are errors: none here


@pytest.mark.parametrize(
    "arguments",
    [
        {"gamma": 0},
        {"tau": 0},
        {"pretrain": 1.0},
        {"reference": "median"},
        {"closed_gate": "open"},
        {"score": "logits"},
        {"eta": float("nan")},
    ],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DOMFN(**arguments)
