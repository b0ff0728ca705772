"""A modality's score is that of what the method predicts from it alone, and tables say what that is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from counterpoise.analysis import SplitLoss, gradient_balance
from counterpoise.engine import Trainer
from counterpoise.fusions import Concat, Shared
from counterpoise.methods import DOMFN, MLA, MSES, Joint, MMCosine, ReconBoost, Unimodal
from counterpoise.metrics import score
from counterpoise.model import MultimodalModel
from counterpoise.testing import NAMES, trainer_for


def cosines(trainer, split, m, scale):
    """By hand, in float64."""
    trainer.model.eval()
    with torch.no_grad():
        z = trainer.model.encoders[m](split.batch(range(len(split)), m, None)).double()
        w = trainer.model.head_of(m).weight.double()
        return scale * F.cosine_similarity(z[:, None], w[None], dim=2)


@pytest.mark.parametrize("fusion", ["Concat", "Sum", partial(Shared, rule="sum")])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("scale", [10.0, 3.0])
def test_mmcosine_is_scored_by_the_cosines_it_trains(count, fusion, scale):
    trainer, data = trainer_for(partial(MMCosine, scale=scale), NAMES[:count], fusion, epochs=2)
    result = trainer.run(data)
    for split, part in ((data.test, "test"), (data.val, "val")):
        for m in NAMES[:count]:
            u = cosines(trainer, split, m, scale)
            expected = score({m: u}, split.target, None, [*trainer.current.metrics, "loss"])
            assert {k: v for k, v in result[part].items() if k.startswith(f"{m}/")} == pytest.approx(expected, abs=1e-5)
            alone = trainer.predict(split, (m,))
            torch.testing.assert_close(alone.unimodal[m], alone.fused)
        streamed = torch.cat([found.unimodal["first"] for found in trainer.stream(split)])
        torch.testing.assert_close(streamed, trainer.predict(split).unimodal["first"])


@pytest.mark.parametrize("rate", [0.5, 1.7, 3.0])
def test_a_learner_of_reconboost_has_the_rate_of_the_ensemble(rate):
    trainer, data = trainer_for(partial(ReconBoost, initial_rate=rate), fusion="Sum")
    trainer.method.setup(trainer.current)
    trainer.method.on_start(trainer.current)
    found = trainer.predict(data.test)
    torch.testing.assert_close(found.fused, found.unimodal["first"] + found.unimodal["second"])
    z = trainer.model.encoders["first"].eval()(data.test.batch(range(len(data.test)), "first", None))
    torch.testing.assert_close(found.unimodal["first"], rate * trainer.model.head_of("first")(z).detach())


@pytest.mark.parametrize("make", [Joint, MMCosine, ReconBoost, MLA, partial(MLA, mode="released"), MSES, DOMFN])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_one_modality_predicts_alone_as_it_does_among_others(make, absent):
    trainer, data = trainer_for(make, NAMES[:3], absent=absent, epochs=3)
    trainer.fit(data.train, data.val)
    whole = trainer.predict(data.test)
    assert whole.broken() == {}
    for m in NAMES[:3]:
        there = slice(None) if data.test.present is None else data.test.present[m]
        alone = trainer.predict(data.test, (m,))
        torch.testing.assert_close(whole.unimodal[m][there], alone.unimodal[m][there])


class Half(Joint):
    """Predicts by half of the logits, whatever it is given."""

    def predict(self, output, model):
        return output.logits / 2


def test_a_rule_of_ones_own_holds_for_single_modalities_and_in_analyses():
    trainer, data = trainer_for(Half, epochs=2)
    result = trainer.run(data)
    u = trainer.predict(data.test).unimodal["second"]
    raw = trainer.model.fuse(
        {"second": trainer.model.encoders["second"].eval()(data.test.batch(range(len(data.test)), "second", None))}
    ).unimodal["second"]
    torch.testing.assert_close(u, raw.detach() / 2)
    loss = SplitLoss(trainer.model, data.test, "second", predict=trainer.method.predict)
    assert torch.stack(list(loss())).sum().item() == pytest.approx(result["test"]["second/loss"], abs=1e-6)
    plain, ruled = (
        gradient_balance(trainer.model, data.train, predict=predict) for predict in (None, trainer.method.predict)
    )
    assert (plain.alignment != ruled.alignment).any()


def test_the_pool_takes_what_the_method_predicts():
    trainer, data = trainer_for(MMCosine, epochs=2)
    model = MultimodalModel(dict(trainer.model.encoders), trainer.model.fusion, pool=True)
    pooled = Trainer(model, MMCosine(), epochs=2, batch_size=18, accelerator="cpu", progress=False)
    pooled.fit(data.train, data.val)
    assert model.pool is not None
    own = {m: cosines(pooled, data.test, m, 10.0).float() for m in NAMES[:2]}
    expected = model.pool({"fused": own["first"] + own["second"], **own}, None)
    torch.testing.assert_close(pooled.predict(data.test).fused, expected, atol=1e-4, rtol=1e-4)
    streamed = torch.cat([found.fused for found in pooled.stream(data.test)])
    torch.testing.assert_close(streamed, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "fusion", "said"),
    [
        (Joint, "Concat", "its slice of the fused layer"),
        (Joint, "Sum", "its own head"),
        (Joint, "Late", "its own head"),
        (Joint, "Gated", "the fusion of it alone"),
        (Joint, "FiLM", "the fusion of it alone"),
        (Joint, "Attention", "the fusion of it alone"),
        (Joint, partial(Concat, heads=True), "its own head"),
        (MSES, "Gated", "its own head"),
        (MLA, "Shared", "the shared head"),
        (MMCosine, "Concat", "cosines with the weights of its slice of the fused layer"),
        (MMCosine, "Sum", "cosines with the weights of its own head"),
        (partial(Unimodal, "first"), "Concat", "its slice of the fused layer"),
    ],
)
def test_the_result_says_which_read_out_it_is(make, fusion, said):
    trainer, data = trainer_for(make, fusion=fusion, epochs=1)
    assert trainer.run(data)["unimodal"] == said
