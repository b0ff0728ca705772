import itertools

import pytest
import torch
from torch import nn

from counterpoise import fusions
from counterpoise._checks import settings
from counterpoise.functional.rules import RULES
from counterpoise.fusions import Concat, FiLM, Fusion, Gated, Late, Shared, Sum

torch.set_num_threads(1)

NAMES = [name for name in fusions.__all__ if name != "Fusion"]
EVERY = {
    **{name: getattr(fusions, name) for name in NAMES},
    **{f"Late-{rule}": lambda d, c, rule=rule, **k: Late(d, c, rule=rule, **k) for rule in RULES},
    **{f"Shared-{rule}": lambda d, c, rule=rule, **k: Shared(d, c, rule=rule, **k) for rule in RULES},
    "Late-linear": lambda d, c, **k: Late(d, c, hidden=(), **k),
}
# Shared(rule="pool") refuses heads: it is fitted on what the shared head says
WITH_HEADS = [(name, heads) for name in EVERY for heads in (False, True) if not (heads and name == "Shared-pool")]
LETTERS = "abcd"


def build(name, modalities=3, heads=False, width=6):
    torch.manual_seed(0)
    fusion = EVERY[name](dict.fromkeys(LETTERS[:modalities], width), 4, heads=heads).double()
    with torch.no_grad():  # biases that matter, so that leaving one in where it should be masked is seen
        for p in fusion.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return fusion


def draw(modalities=3, batch=5, width=6):
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, width, generator=g, dtype=torch.float64) for m in LETTERS[:modalities]}


PRESENT = {
    "a": torch.tensor([1, 1, 0, 0, 1]).bool(),
    "b": torch.tensor([1, 0, 1, 0, 0]).bool(),
    "c": torch.tensor([1, 1, 1, 1, 0]).bool(),
}


@pytest.mark.parametrize(("name", "heads"), WITH_HEADS)
@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_any_subset_of_any_number_of_modalities(name, modalities, heads):
    fusion, z = build(name, modalities, heads), draw(modalities)
    for size in range(1, modalities + 1):
        for subset in itertools.combinations(z, size):
            logits, unimodal = fusion({m: z[m] for m in subset})
            assert logits.shape == (5, 4)
            assert tuple(unimodal) == subset
            assert all(u.shape == (5, 4) for u in unimodal.values())
            assert logits.isfinite().all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("garbage", [1e3, float("nan")])
def test_what_absent_rows_hold_reaches_neither_logits_nor_gradients(name, garbage):
    fusion, z = build(name), draw()
    clean, _ = fusion(z, PRESENT)
    clean.pow(2).sum().backward()
    grads = [None if p.grad is None else p.grad.clone() for p in fusion.parameters()]
    fusion.zero_grad()
    dirty = {m: x.masked_fill(~PRESENT[m].unsqueeze(1), garbage) for m, x in z.items()}
    logits, unimodal = fusion(dirty, PRESENT)
    logits.pow(2).sum().backward()
    assert torch.equal(logits, clean)
    assert all(u.isfinite().all() for u in unimodal.values())
    for p, g in zip(fusion.parameters(), grads, strict=True):
        assert (p.grad is None) == (g is None)
        if g is not None:
            assert torch.equal(p.grad, g)


@pytest.mark.parametrize("name", EVERY)
def test_absent_by_mask_is_absent_by_name(name):
    fusion, z = build(name), draw()
    masked, _ = fusion(z, PRESENT)
    for i in range(5):
        there = [m for m in z if PRESENT[m][i]]
        if there:
            alone, _ = fusion({m: z[m][i : i + 1] for m in there})
            torch.testing.assert_close(masked[i : i + 1], alone)


@pytest.mark.parametrize("name", EVERY)
def test_a_mask_for_some_modalities_leaves_the_others(name):
    fusion, z = build(name), draw()
    everyone = torch.ones(5, dtype=torch.bool)
    some, _ = fusion(z, {"b": PRESENT["b"]})
    full, _ = fusion(z, {"a": everyone, "b": PRESENT["b"], "c": everyone})
    torch.testing.assert_close(some, full)
    torch.testing.assert_close(fusion(z, {})[0], fusion(z)[0])


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_with_no_modality_is_finite_with_gradient(name):
    fusion, z = build(name), draw()
    logits, unimodal = fusion(z, {m: torch.zeros(5, dtype=torch.bool) for m in z})
    (logits.sum() + sum(u.sum() for u in unimodal.values())).backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_the_features_does_not_matter(name):
    fusion, z = build(name), draw()
    backwards = {m: z[m] for m in reversed(z)}
    torch.testing.assert_close(fusion(z, PRESENT)[0], fusion(backwards, PRESENT)[0])


@pytest.mark.parametrize("name", [name for name in EVERY if name != "Gated"])
def test_nor_does_the_order_of_the_modalities(name):
    one, z = build(name), draw()
    other = EVERY[name](dict.fromkeys("cab", 6), 4).double()
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(z)[0], other(z)[0])


# Concat alone keeps the whole bias when it fuses one modality, and gives it 1/M of it otherwise.
@pytest.mark.parametrize("name", [name for name in EVERY if name != "Concat"])
def test_one_modality_there_predicts_as_that_modality(name):
    fusion, z = build(name), draw()
    for m in z:
        logits, unimodal = fusion({m: z[m]})
        torch.testing.assert_close(logits.softmax(-1).argmax(-1), unimodal[m].argmax(-1))
        full = fusion(z)[1][m]
        torch.testing.assert_close(full, unimodal[m])
    only_b = {m: torch.full((5,), m == "b") for m in z}
    torch.testing.assert_close(fusion(z, only_b)[0].argmax(-1), fusion(z)[1]["b"].argmax(-1))


@pytest.mark.parametrize(("name", "heads"), WITH_HEADS)
def test_additive_says_whether_the_unimodal_logits_sum_to_the_fused(name, heads):
    fusion, z = build(name, heads=heads), draw()
    logits, unimodal = fusion(z)
    assert torch.allclose(sum(unimodal.values()), logits) == fusion.additive


@pytest.mark.parametrize(("name", "heads"), WITH_HEADS)
def test_own_heads_read_one_feature_and_are_owned_by_it(name, heads):
    fusion, z = build(name, heads=heads), draw()
    assert fusion.heads is heads
    if not fusion.has_own_heads:
        assert not heads
        return
    _, unimodal = fusion(z)
    for m in z:
        torch.testing.assert_close(unimodal[m], fusion.own_heads[m](z[m]))
        assert fusion.head_of(m) is fusion.own_heads[m]
        assert fusion.own_heads[m] in fusion.modules_of(m)


@pytest.mark.parametrize(("name", "heads"), WITH_HEADS)
def test_no_parameter_has_two_owners(name, heads):
    fusion = build(name, heads=heads)
    owned = [id(p) for m in fusion.dims for part in fusion.modules_of(m) for p in part.parameters()]
    assert len(owned) == len(set(owned))
    assert set(owned) <= {id(p) for p in fusion.parameters()}


@pytest.mark.parametrize("name", EVERY)
def test_second_derivatives_exist(name):
    fusion, z = build(name), {m: x.requires_grad_() for m, x in draw().items()}
    loss = fusion(z, PRESENT)[0].pow(2).sum()
    grads = torch.autograd.grad(loss, list(z.values()), create_graph=True)
    assert all(p.grad is None for p in fusion.parameters())
    sum(g.pow(2).sum() for g in grads).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_autocast(name):
    fusion, z = build(name).float(), {m: x.float() for m, x in draw().items()}
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = fusion(z, PRESENT)
        logits.float().sum().backward()
    exact = fusion(z, PRESENT)[0]
    assert (logits.float() - exact).norm() < 0.05 * exact.norm()


# -- each by itself ----------------------------------------------------------------------------------------------------


def test_concat_is_linear_on_the_concatenation_down_to_the_random_draws():
    dims = {"a": 3, "b": 5, "c": 2}
    torch.manual_seed(7)
    whole, after = nn.Linear(10, 4), torch.rand(1)
    torch.manual_seed(7)
    fusion = Concat(dims, 4)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(torch.cat([fusion.blocks[m].weight for m in dims], dim=1), whole.weight)
    z = {m: torch.randn(6, d) for m, d in dims.items()}
    logits, unimodal = fusion(z)
    torch.testing.assert_close(logits, whole(torch.cat(list(z.values()), dim=1)))
    torch.testing.assert_close(unimodal["b"], z["b"] @ whole.weight[:, 3:8].T + whole.bias / 3)
    torch.testing.assert_close(sum(unimodal.values()), logits)
    logits.sum().backward()
    assert all(p.grad is not None for p in fusion.parameters())


def test_concat_without_a_modality_is_linear_on_zeros():
    fusion, z = build("Concat"), draw()
    padded = {**z, "b": torch.zeros_like(z["b"])}
    logits, unimodal = fusion({"a": z["a"], "c": z["c"]})
    torch.testing.assert_close(logits, fusion(padded)[0])
    assert torch.equal(unimodal["a"], fusion(z)[1]["a"])


def test_sum_adds_linear_heads():
    fusion, z = build("Sum"), draw()
    torch.testing.assert_close(
        fusion(z)[0], sum(nn.functional.linear(z[m], h.weight, h.bias) for m, h in fusion.own_heads.items())
    )
    assert all(isinstance(fusion.head_of(m), nn.Linear) for m in z)


def test_the_default_late_head_is_the_one_of_the_paper():
    fusion = Late({"a": 512, "b": 512}, 6)
    head = fusion.head_of("a")
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear, nn.Linear]
    shapes = [(x.in_features, x.out_features) for x in head if isinstance(x, nn.Linear)]
    assert shapes == [(512, 256), (256, 64), (64, 6)]
    assert sum(p.numel() for p in head.parameters()) == 148_166  # measured on the released model
    torch.testing.assert_close(fusion({m: torch.ones(1, 512) for m in "ab"})[0].exp().sum(), torch.tensor(1.0))


@pytest.mark.parametrize(("hidden", "kinds"), [((), "L"), ((7,), "LRL"), ((7, 6), "LRLL"), ((7, 6, 5), "LRLRLL")])
def test_hidden_layers_of_a_head(hidden, kinds):
    head = Late({"a": 3}, 2, hidden=hidden).head_of("a")
    layers = [head] if isinstance(head, nn.Linear) else list(head)
    assert "".join("L" if isinstance(layer, nn.Linear) else "R" for layer in layers) == kinds


def test_shared_has_one_head_that_nobody_owns():
    fusion = build("Shared")
    assert fusion.head_of("a") is fusion.head_of("c") is fusion.head
    assert fusion.modules_of("a") == []
    assert not fusion.has_own_heads


def test_shared_refuses_widths_that_differ_and_says_what_to_do():
    with pytest.raises(ValueError, match=r"a: 3, b: 5.*Projected\(encoder, dim=3\)"):
        Shared({"a": 3, "b": 5}, 4)


@pytest.mark.parametrize("fusion", [Late, Shared])
def test_an_unknown_rule_names_the_nearest(fusion):
    with pytest.raises(ValueError, match="entropy"):
        fusion({"a": 3}, 2, rule="entropi")


def test_gated_by_the_equations():
    fusion, z = build("Gated", 2), draw(2)
    h = 0
    for i, m in enumerate("ab"):
        rows = slice(i * fusion.dim, (i + 1) * fusion.dim)
        gate = sum(z[k] @ fusion.gates[k].weight[rows].T for k in "ab").sigmoid()
        h = h + gate * (z[m] @ fusion.values[m].weight.T).tanh()
    torch.testing.assert_close(fusion(z)[0], fusion.classify(h))


def test_film_by_the_equations():
    fusion, z = build("FiLM"), draw()
    pooled = 0
    for m in z:
        gamma, beta = (sum(fusion.films[k](z[k]) for k in z if k != m) / 2).chunk(2, dim=1)
        pooled = pooled + ((1 + gamma) * fusion.projections[m](z[m]) + beta) / 3
    torch.testing.assert_close(fusion(z)[0], fusion.classify(pooled))


def test_film_alone_is_the_identity():
    fusion, z = build("FiLM"), draw()
    torch.testing.assert_close(fusion({"b": z["b"]})[0], fusion.classify(fusion.projections["b"](z["b"])))


def test_attention_agrees_with_the_block_of_torch():
    fusion, z = build("Attention"), draw()
    block = nn.TransformerEncoderLayer(256, 4, 512, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    block.double().load_state_dict(
        {
            "self_attn.in_proj_weight": fusion.qkv.weight,
            "self_attn.in_proj_bias": fusion.qkv.bias,
            **{f"self_attn.out_proj.{k}": v for k, v in fusion.out.state_dict().items()},
            **{f"linear1.{k}": v for k, v in fusion.feed[0].state_dict().items()},
            **{f"linear2.{k}": v for k, v in fusion.feed[2].state_dict().items()},
            **{f"norm1.{k}": v for k, v in fusion.norms[0].state_dict().items()},
            **{f"norm2.{k}": v for k, v in fusion.norms[1].state_dict().items()},
        }
    )
    tokens = torch.stack([fusion.token.expand(5, -1), *(fusion.projections[m](z[m]) for m in z)], dim=1)
    absent = torch.stack([torch.zeros(5, dtype=torch.bool), *(~PRESENT[m] for m in z)], dim=1)
    read = block(tokens, src_key_padding_mask=absent)[:, 0]
    torch.testing.assert_close(fusion(z, PRESENT)[0], fusion.classify(fusion.norms[2](read)))


def test_wide_and_deep():
    fusion, z = build("WideDeep"), draw()
    u = fusion.bias.clone()
    h = fusion.shift.clone()
    for m, x in z.items():
        rows = x * PRESENT[m].unsqueeze(1)
        u, h = u + rows @ fusion.wide[m].weight.T, h + rows @ fusion.deep[m].weight.T
    expected = u + h.clamp(min=0) @ fusion.classify.weight.T
    torch.testing.assert_close(fusion(z, PRESENT)[0], expected)
    linear_in = torch.cat([*(layer.weight for layer in fusion.wide.values()), fusion.classify.weight], dim=1)
    torch.testing.assert_close(fusion.embed(z, None) @ linear_in.T + fusion.bias, fusion(z)[0])


def test_what_two_tell_only_together_is_in_the_hidden_layer():
    bits = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    target = (bits[:, 0] != bits[:, 1]).long()
    right = {}
    for cls in (Concat, fusions.WideDeep):
        torch.manual_seed(0)
        fusion = cls({"a": 1, "b": 1}, 2)
        optimizer = torch.optim.Adam(fusion.parameters(), lr=0.02)
        for _ in range(200):
            loss = nn.functional.cross_entropy(fusion({"a": bits[:, :1], "b": bits[:, 1:]})[0], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right[cls] = loss.item()
    assert right[Concat] > 0.69
    assert right[fusions.WideDeep] < 0.1


@pytest.mark.parametrize("name", ["Gated", "FiLM", "Attention", "WideDeep"])
def test_no_head_to_read_off_without_heads(name):
    with pytest.raises(ValueError, match="heads=True"):
        build(name).head_of("a")
    assert isinstance(build(name, heads=True).head_of("a"), nn.Linear)


@pytest.mark.parametrize(("cls", "bad"), [(Gated, 0), (FiLM, 0), (fusions.Attention, 6), (fusions.WideDeep, 0)])
def test_bad_widths(cls, bad):
    with pytest.raises(ValueError, match="dim must be"):
        cls({"a": 3}, 2, dim=bad)


@pytest.mark.parametrize("name", NAMES)
def test_messages_about_what_is_passed_in(name):
    cls = getattr(fusions, name)
    with pytest.raises(ValueError, match="num_classes must be a whole number >= 1; got 0"):
        cls({"a": 3}, 0)
    with pytest.raises(ValueError, match=r"at least one modality|one width"):
        cls({}, 2)
    fusion = cls({"sound": 3}, 2)
    with pytest.raises(ValueError, match="at least one modality"):
        fusion({})
    with pytest.raises(ValueError, match="Did you mean 'sound'"):
        fusion({"sond": torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="Did you mean 'sound'"):
        fusion.head_of("sond")


@pytest.mark.parametrize("name", NAMES)
def test_constructor_arguments_can_be_read_back(name):
    fusion = getattr(fusions, name)({"a": 3, "b": 3}, 2, heads=True)
    read = settings(fusion)
    assert read["dims"] == {"a": 3, "b": 3}
    assert read["num_classes"] == 2
    assert read["heads"] is True
    assert set(type(fusion)(**read).state_dict()) == set(fusion.state_dict())


def test_the_contract_itself():
    with pytest.raises(NotImplementedError, match="Fusion must define fuse"):
        Fusion({"a": 3}, 2)({"a": torch.zeros(1, 3)})
    assert Sum({"a": 3}, 2).calibrate({"a": torch.zeros(1, 2)}, torch.zeros(1).long()) is False


@pytest.mark.parametrize("modality", ["type", "values", "depth.rgb", ""])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_module_dictionaries_refuse(name, modality):
    with pytest.raises(ValueError, match=f"A modality cannot be called '{modality}'.*Rename it"):
        EVERY[name]({"a": 6, modality: 6}, 4)
