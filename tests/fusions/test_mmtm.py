import pytest
import torch

from counterpoise.fusions import MMTM

F64 = torch.float64
Z = {"a": torch.tensor([[1.0, 2]], dtype=F64), "v": torch.tensor([[0.5, -1]], dtype=F64)}
SQUEEZE = {"a": [[0.2, -0.1], [0.0, 0.3]], "v": [[0.4, 0.0], [-0.2, 0.1]]}
EXCITE = {"a": [[1.0, 0], [0.5, -1]], "v": [[0.0, 1], [-1, 0.5]]}


@pytest.fixture
def example():
    """The worked example, with its modalities in either order."""

    def build(names="av"):
        torch.manual_seed(0)
        fusion = MMTM(dict.fromkeys(names, 2), 3, ratio=4).double()
        with torch.no_grad():
            fusion.bias.copy_(torch.tensor([0.1, 0], dtype=F64))
            for m in names:
                fusion.squeeze[m].weight.copy_(torch.tensor(SQUEEZE[m], dtype=F64))
                fusion.excite[m].weight.copy_(torch.tensor(EXCITE[m], dtype=F64))
                fusion.excite[m].bias.zero_()
        return fusion

    return build


@pytest.mark.parametrize("names", ["av", "va"])
def test_gates_of_the_worked_example(example, names):
    fusion = example(names)
    gates = fusion.gates({m: Z[m] for m in names})
    assert gates["a"].flatten().tolist() == pytest.approx([0.5744425168, 0.4378234991], abs=1e-9)
    assert gates["v"].flatten().tolist() == pytest.approx([0.5986876601, 0.4750208125], abs=1e-9)
    gated = fusion.embed(Z, None)[0, :2].tolist()
    assert gated == pytest.approx([0.5744425168, 0.8756469982], abs=1e-9)
    said = fusion(Z)[0]
    wanted = sum(z * gates[m] @ fusion.classify[m].weight.T + fusion.classify[m].bias for m, z in Z.items()) / 2
    torch.testing.assert_close(said, wanted)


def test_the_squeeze_is_one_linear_layer_down_to_the_random_draws():
    torch.manual_seed(3)
    whole = torch.nn.Linear(8, 4)
    torch.manual_seed(3)
    fusion = MMTM({"a": 3, "b": 5}, 2, ratio=4)
    assert torch.equal(torch.cat([fusion.squeeze[m].weight for m in "ab"], dim=1), whole.weight)
    assert torch.equal(fusion.bias, whole.bias)


def test_a_held_gate_keeps_the_others_out(example):
    fusion, z = example(), {m: v.clone().requires_grad_() for m, v in Z.items()}
    gate = torch.tensor([0.3, 0.9], dtype=F64)
    with fusion.hold({"a": gate}):
        votes = fusion.votes(z)
        torch.testing.assert_close(votes["a"], fusion.classify["a"](gate * z["a"]))
        votes["a"].sum().backward()
    assert z["v"].grad is None
    assert fusion.excite["a"].weight.grad is None
    assert fusion.bias.grad is None
    before = fusion(Z)[0]
    with fusion.hold({"a": gate}), fusion.hold({}):
        assert torch.equal(fusion(Z)[0], before)


def test_parts_are_all_parameters_with_the_squeeze_in_every_gate():
    fusion = MMTM({"a": 3, "b": 5}, 2)
    head, gate = fusion.parts("b")
    names = {id(p): n for n, p in fusion.named_parameters()}
    assert {names[id(p)] for p in head} == {"classify.b.weight", "classify.b.bias"}
    assert {names[id(p)] for p in gate} == {
        "excite.b.weight", "excite.b.bias", "squeeze.a.weight", "squeeze.b.weight", "bias",
    }  # fmt: skip


def test_ratio_must_be_positive():
    with pytest.raises(ValueError, match="ratio must be"):
        MMTM({"a": 3}, 2, ratio=0)
