from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from one_step import first_step, gradients

from counterpoise.engine import Observer
from counterpoise.fusions import Gated
from counterpoise.methods.midas import MIDAS
from counterpoise.testing import NAMES, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


def reference(trainer, step, output, state, lam, alpha):
    """Loss, next weights and who is weakest, sample by sample in float64, with the rows that the method drew."""
    names, n, y = step.model.modalities, len(step.batch.target), step.batch.target.tolist()
    generator = torch.Generator()
    generator.set_state(state)
    sources = [list(range(n)), *(torch.randperm(n, generator=generator).tolist() for _ in names[1:])]
    has = [[step.present(m) is None or bool(step.present(m)[i]) for m in names] for i in range(n)]
    p = {m: output.unimodal[m].detach().double().softmax(1) for m in names}
    z = {m: output.features[m].detach() for m in names}
    losses, sure, signal = [], {m: [] for m in names}, {m: [] for m in names}
    for turn in range(len(names)):
        of = [sources[(k - turn) % len(names)] for k in range(len(names))]
        for i in range(n):
            rows = [of[k][i] for k in range(len(names))]
            if len({y[r] for r in rows}) == 1 or not all(all(has[r]) for r in rows):
                continue
            with torch.no_grad():
                fused = step.model.fuse({m: z[m][[r]] for m, r in zip(names, rows, strict=True)}).logits[0].double()
            q, c = fused.softmax(0), [float(p[m][r][y[r]]) for m, r in zip(names, rows, strict=True)]
            share = [v / sum(c) for v in c]
            cosines = [
                float(torch.cosine_similarity(z[m][i].double(), z[m][r].double(), 0))
                for m, r in zip(names, rows, strict=True)
                if y[r] != y[i]
            ]
            hard = 1 + (sum(cosines) / len(cosines) + 1) / 2
            losses.append(hard * sum(a * s * -math.log(q[y[r]]) for a, s, r in zip(alpha, share, rows, strict=True)))
            said = [float(q[y[r]]) for r in rows]
            for k, m in enumerate(names):
                sure[m].append(c[k])
                signal[m].append(share[k] - said[k] / sum(said))
    nll = torch.nn.functional.cross_entropy
    loss = float(nll(output.logits.detach().double(), step.batch.target))
    for k, m in enumerate(names):
        rows = torch.tensor([h[k] for h in has])
        loss += float(nll(output.unimodal[m].detach().double()[rows], step.batch.target[rows]))
    weakest = min(names, key=lambda m: sum(sure[m]))
    k = names.index(weakest)
    moved = [1.0] * len(names)
    moved[k] = max(1.0, alpha[k] + 0.5 * sum(signal[weakest]) / len(losses))
    return loss + lam * sum(losses) / len(losses), moved


@pytest.mark.parametrize("absent", [0.0, 0.15])
@pytest.mark.parametrize("fusion", ["Concat", partial(Gated, heads=True)])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_a_step_against_the_reference(names, fusion, absent):
    trainer, step = first_step(partial(MIDAS, 0.7, eta=0.5, warmup=0), names, fusion, absent=absent)
    alpha = [1.4, 1.2, 1.1][: len(names)]
    trainer.method.alpha.copy_(torch.tensor(alpha))
    state = trainer.current.generator.get_state()
    output, loss, found = gradients(trainer, step)
    expected, moved = reference(trainer, step, output, state, 0.7, alpha)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert trainer.method.alpha.tolist() == pytest.approx(moved, rel=1e-5)
    assert all(g is not None and g.abs().sum() > 0 for g in found.values())


def test_labels_and_hardness_are_constants():
    trainer, step = first_step(partial(MIDAS, warmup=0), TWO)
    heads = {n for n, _ in trainer.model.named_parameters() if "head" in n}
    assert heads
    state, results = trainer.current.generator.get_state(), []
    for lam in (0.0, 3.0):
        trainer.method.lam = lam
        trainer.current.generator.set_state(state)
        results.append(gradients(trainer, step)[2])
    for n in heads:  # the heads learn from their own losses only
        torch.testing.assert_close(results[0][n], results[1][n])
    assert not torch.equal(results[0]["encoders.first.0.weight"], results[1]["encoders.first.0.weight"])


class Resting(Observer):
    """What only the fused prediction uses stands still in the warm-up; the weights are 1 until then."""

    def __init__(self):
        self.rests = []

    def shared(self, run):
        heads = {id(p) for head in run.model.fusion.own_heads.values() for p in head.parameters()}
        return [p.detach().clone() for p in run.model.fusion.parameters() if id(p) not in heads]

    def on_batch_start(self, run, batch):
        self.before = self.shared(run)

    def on_batch_end(self, run):
        self.rests.append((run.epoch, all(map(torch.equal, self.before, self.shared(run)))))


def test_warm_up():
    watch = Resting()
    trainer, data = trainer_for(partial(MIDAS, warmup=2), TWO, epochs=4, observers=[watch])
    trainer.fit(data.train, data.val)
    assert dict(watch.rests) == {0: True, 1: True, 2: False, 3: False}
    assert trainer.current.state.best_epoch > 2
    assert [f"train/{TWO[0]}/alpha" in record for record in trainer.history] == [False, False, True, True]
    for epochs, length in ((20, 2), (9, 0)):
        assert [MIDAS()._warm(e, epochs) for e in range(3)] == [e < length for e in range(3)]


def test_a_batch_of_one_class_has_nothing_misaligned():
    trainer, step = first_step(partial(MIDAS, warmup=0), TWO)
    trainer.method.alpha.copy_(torch.tensor([1.5, 1.0]))
    step.batch = step.batch._replace(target=torch.zeros_like(step.batch.target))
    _, loss, _ = gradients(trainer, step)
    trainer.method.lam = 0.0
    assert loss.item() == pytest.approx(gradients(trainer, step)[1].item())
    assert trainer.method.alpha.tolist() == [1.5, 1.0]


def test_a_warm_up_that_is_all_of_the_run_is_refused():
    trainer, data = trainer_for(partial(MIDAS, warmup=4))
    with pytest.raises(ValueError, match="warmup=4 leaves none of the 4 epochs"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"lam": -1}, {"eta": -1}, {"warmup": -1}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MIDAS(**arguments)
