import copy

import pytest
import torch
from torch import nn

from counterpoise import fusions
from counterpoise.encoders import MLP
from counterpoise.fusions import Concat, Late
from counterpoise.model import MultimodalModel

torch.set_num_threads(1)

NAMES = [name for name in fusions.__all__ if name != "Fusion"]


class Counting(nn.Module):
    """A linear encoder that remembers what it was given."""

    def __init__(self, n_in=4, n_out=6):
        super().__init__()
        self.linear, self.seen = nn.Linear(n_in, n_out), []

    def forward(self, x):
        self.seen.append(x)
        return self.linear(x)


def build(name="Concat", modalities="abc", heads=False, encoder=Counting):
    torch.manual_seed(0)
    fusion = getattr(fusions, name)(dict.fromkeys(modalities, 6), 3, heads=heads)
    return MultimodalModel({m: encoder() for m in modalities}, fusion)


def draw(modalities="abc", batch=5):
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, 4, generator=g) for m in modalities}


def test_the_order_of_the_modalities_is_that_of_the_encoders():
    model = build(modalities="cab")
    assert model.modalities == ("c", "a", "b")
    assert model.num_classes == 3
    assert model.select(["b", "c"]) == ("c", "b")
    assert model.select(None) == ("c", "a", "b")
    assert tuple(model(draw("abc")).unimodal) == ("c", "a", "b")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("modalities", ["a", "ab", "abcd"])
def test_every_parameter_is_in_exactly_one_group(name, heads, modalities):
    model = build(name, modalities, heads)
    groups = [*(model.parameters_of(m) for m in model.modalities), model.shared_parameters()]
    ids = [id(p) for group in groups for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}


def test_ownership_is_by_module_not_by_name():
    """Names that contain each other, and the words of the library, are names like any other."""
    names = ("head", "head2", "encoders_fusion")
    model = MultimodalModel({m: Counting() for m in names}, Late(dict.fromkeys(names, 6), 3, hidden=()))
    for m in names:
        own = {id(p) for p in [*model.encoders[m].parameters(), *model.head_of(m).parameters()]}
        assert {id(p) for p in model.parameters_of(m)} == own
    assert model.shared_parameters() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_branch_is_encoder_and_head(name):
    model = build(name, heads=True)
    for m in model.modalities:
        assert model.branch_of(m) == [model.encoders[m], model.head_of(m)]
    model = build(name)
    if name != "Shared":
        assert all(model.branch_of(m) == model.modules_of(m) for m in model.modalities)


def test_only_a_modality_s_own_parameters_feel_its_loss_under_late_fusion():
    model = build("Late")
    model(draw()).unimodal["b"].sum().backward()
    assert all(p.grad is not None for p in model.parameters_of("b"))
    assert all(p.grad is None for m in "ac" for p in model.parameters_of(m))


def test_a_subset_runs_and_needs_nothing_else():
    model, x = build(), draw()
    out = model({"b": x["b"]}, only=["b"])
    assert tuple(out.features) == tuple(out.unimodal) == ("b",)
    assert model.encoders["a"].seen == []
    torch.testing.assert_close(out.features["b"], model(x).features["b"])


def test_unknown_modality():
    with pytest.raises(ValueError, match="Did you mean 'audio'"):
        build(modalities=["audio", "text"]).select(["adio"])


def test_absent_samples_are_not_run_and_give_zero_rows():
    model, x = build(), draw()
    mask = torch.tensor([True, False, True, True, False])
    z = model.encode(x, present={"b": mask})["b"]
    assert torch.equal(model.encoders["b"].seen[0], x["b"][mask])
    assert (z[~mask] == 0).all()
    torch.testing.assert_close(z[mask], model.encoders["b"].linear(x["b"])[mask])
    assert len(model.encoders["a"].seen[0]) == 5


@pytest.mark.parametrize("mask", [[False] * 5, [True] * 5])
def test_all_or_none_there(mask):
    model, x = build(), draw()
    z = model.encode(x, ["a"], {"a": torch.tensor(mask)})["a"]
    assert len(model.encoders["a"].seen) == all(mask)
    assert z.shape == (5, 6)
    assert (z.abs().sum() > 0) == all(mask)


def test_absent_garbage_touches_neither_output_nor_gradients():
    mask = {"b": torch.tensor([True, False, True, True, False])}
    results = []
    for garbage in (0.0, float("nan")):
        model, x = build(), draw()
        x["b"][~mask["b"]] = garbage
        out = model(x, present=mask)
        out.logits.pow(2).sum().backward()
        results.append([out.logits.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_partial_presence_under_bfloat16_autocast(name, rows):
    model, x = build(name, encoder=lambda: MLP(4, dim=6)), draw()
    present = {"b": torch.arange(5) < rows}
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, present=present)
        loss = out.logits.float().logsumexp(-1).sum()
    loss.backward()
    assert out.logits.isfinite().all()
    assert out.features["b"].shape == (5, 6)
    assert all(
        p.grad is None or (p.grad.dtype == torch.float32 and p.grad.isfinite().all()) for p in model.parameters()
    )


def test_a_model_in_float64_stays_so_when_nothing_is_there():
    model = build().double()
    out = model({m: x.double() for m, x in draw().items()}, present={"a": torch.zeros(5, dtype=torch.bool)})
    assert out.features["a"].dtype == out.logits.dtype == torch.float64


def test_fuse_after_encode_is_forward():
    model, x = build("FiLM"), draw()
    present = {"c": torch.tensor([True, False, True, True, False])}
    out = model.fuse(model.encode(x, ["a", "c"], present), present)
    assert torch.equal(out.logits, model(x, ["a", "c"], present).logits)


def test_a_copy_shares_nothing():
    model = build()
    other = copy.deepcopy(model)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in other.parameters()}


@pytest.mark.parametrize("shape", [(5, 6, 1), (5, 7), (4, 6)])
def test_an_encoder_of_another_shape_is_named(shape):
    class Wrong(nn.Module):
        def forward(self, x):
            return torch.zeros(shape)

    model = MultimodalModel({"sound": Wrong()}, Concat({"sound": 6}, 2))
    with pytest.raises(
        ValueError, match=r"encoders\['sound'\] must give features .* \(5, 6\); got \(" + str(shape)[1:-1]
    ):
        model({"sound": torch.zeros(5, 4)})


def test_an_encoder_that_gives_no_tensor_is_named():
    class Wrong(nn.Module):
        def forward(self, x):
            return x, x

    model = MultimodalModel({"sound": Wrong()}, Concat({"sound": 6}, 2))
    with pytest.raises(ValueError, match="got tuple"):
        model({"sound": torch.zeros(5, 6)})


def test_encoders_and_fusion_must_agree():
    with pytest.raises(ValueError, match=r"fusion was built for modalities \('a', 'b'\)"):
        MultimodalModel({"a": Counting()}, Concat({"a": 6, "b": 6}, 2))
    with pytest.raises(ValueError, match="at least one modality"):
        MultimodalModel({}, Concat({"a": 6}, 2))
