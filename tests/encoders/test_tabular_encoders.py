"""Encoders of rows: what they compute, by an independent reference; categories as weights of levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from counterpoise.encoders import MLP, FTTransformer, TabularMLP, default_encoder


def _one_hot(numbers: torch.Tensor, *categories: tuple[list[int], int]) -> torch.Tensor:
    hot = [torch.nn.functional.one_hot(torch.tensor(c), n).float() for c, n in categories]
    return torch.cat([numbers, *hot], 1)


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def _attention(x: np.ndarray, w: dict[str, np.ndarray], heads: int) -> np.ndarray:
    tokens, dim = x.shape
    q, k, v = (
        (x @ w["attention.in_proj_weight"].T + w["attention.in_proj_bias"]).reshape(tokens, 3, heads, -1).swapaxes(0, 1)
    )
    mixed = np.empty((tokens, heads, dim // heads))
    for head in range(heads):
        scores = np.exp(q[:, head] @ k[:, head].T / math.sqrt(dim // heads))
        mixed[:, head] = scores / scores.sum(1, keepdims=True) @ v[:, head]
    return mixed.reshape(tokens, dim) @ w["attention.out_proj.weight"].T + w["attention.out_proj.bias"]


def test_ft_transformer_is_that_of_the_paper():
    """Equations of section 3.3, one sample in float64: tokenizer, blocks with pre-norm and ReGLU, ReLU(LN(CLS))."""
    torch.manual_seed(0)
    encoder = FTTransformer(2, (3, 2), dim=12, layers=2, heads=3).eval()
    for parameter in encoder.parameters():  # norms and biases too, which start as nothing
        torch.nn.init.normal_(parameter, std=0.5)
    w = {name: value.double().numpy() for name, value in encoder.state_dict().items()}
    numbers, categories = [0.7, -1.3], [2, 0]
    tokens = [w["summary"][0]]
    tokens += [x * w["scale"][j] + w["bias"][j] for j, x in enumerate(numbers)]
    tokens += [w[f"embeddings.{j}.weight"][:, c] + w["bias"][2 + j] for j, c in enumerate(categories)]
    x = np.stack(tokens)
    for i in range(2):
        b = {name.removeprefix(f"blocks.{i}."): v for name, v in w.items() if name.startswith(f"blocks.{i}.")}
        x = x + _attention(_norm(x, b["first.weight"], b["first.bias"]) if i else x, b, heads=3)
        wide = _norm(x, b["second.weight"], b["second.bias"]) @ b["widen.weight"].T + b["widen.bias"]
        x = x + (wide[:, :16] * np.maximum(wide[:, 16:], 0)) @ b["narrow.weight"].T + b["narrow.bias"]
    expected = np.maximum(_norm(x[0], w["norm.weight"], w["norm.bias"]), 0)
    found = encoder(_one_hot(torch.tensor([numbers]), ([2], 3), ([0], 2)))[0]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=2e-4, atol=2e-5)


def test_tabular_mlp_embeds_each_category():
    torch.manual_seed(0)
    encoder = TabularMLP(2, (3, 200), dim=5)
    assert [tuple(e.weight.shape) for e in encoder.embeddings] == [(3, 3), (32, 200)]
    x = _one_hot(torch.tensor([[0.5, -2.0]]), ([1], 3), ([17], 200))
    first, second = (e.weight for e in encoder.embeddings)
    expected = encoder.mlp(torch.cat([x[0, :2], first[:, 1], second[:, 17]])[None])
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("kind", [TabularMLP, FTTransformer])
def test_a_category_of_no_known_level_adds_nothing(kind):
    torch.manual_seed(0)
    encoder = kind(1, (4,), dim=8).eval()
    x = torch.cat([torch.ones(2, 1), torch.zeros(2, 4)], 1)
    with torch.no_grad():
        before = encoder(x)
        encoder.embeddings[0].weight.normal_()
    torch.testing.assert_close(encoder(x), before)


@pytest.mark.parametrize("kind", [TabularMLP, FTTransformer])
def test_rows_of_numbers_or_of_categories_alone(kind):
    assert kind(3, dim=8)(torch.randn(2, 3)).shape == (2, 8)
    assert kind(0, [2, 3], dim=8)(torch.randn(2, 5)).shape == (2, 8)
    with pytest.raises(ValueError, match="a row needs at least one number or category"):
        kind(0)
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}\(numbers=3, levels=\[2\]\) takes \(batch, 5\); got \(2, 4\)"
    ):
        kind(3, [2], dim=8)(torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"levels\[1\] must be a whole number >= 1"):
        kind(1, [2, 0])


def test_wrong_widths_of_the_transformer():
    with pytest.raises(ValueError, match="dim must be a multiple of heads, 8; got 20"):
        FTTransformer(1, dim=20)
    with pytest.raises(ValueError, match="attention_dropout must be a finite number"):
        FTTransformer(1, attention_dropout=1.0)


def test_the_default_encoder_of_a_row():
    encoder = default_encoder("tabular", (9,), numbers=2, levels=[3, 4])
    assert isinstance(encoder, TabularMLP)
    assert (encoder.numbers, encoder.levels) == (2, (3, 4))
    assert isinstance(default_encoder("tabular", (9,)).mlp, MLP)
