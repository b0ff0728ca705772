from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from counterpoise.datasets.flow import horn_schunck


def scene(edge: int = 160) -> torch.Tensor:
    noise = torch.rand(1, 1, edge // 12, edge // 12, generator=torch.Generator().manual_seed(0))
    return 255 * F.interpolate(noise, size=(edge, edge), mode="bicubic")[0, 0].clamp(0, 1)


def seen(picture: torch.Tensor, right: int, down: int) -> torch.Tensor:
    """The middle of the scene after it has moved."""
    return picture[32 - down : 128 - down, 32 - right : 128 - right]


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -1), (3, -2), (-6, 4), (8, 8)])
def test_a_translation_is_found(right, down):
    picture = scene()
    flow = horn_schunck(torch.stack([seen(picture, 0, 0), seen(picture, right, down)]))
    assert flow.shape == (1, 2, 96, 96)
    inside = flow[0, :, 24:-24, 24:-24]
    assert (inside[0] - right).abs().median() < 0.25
    assert (inside[1] - down).abs().median() < 0.25


def test_frames_are_independent_of_those_around_them():
    picture = scene()
    frames = torch.stack([seen(picture, i % 3, i % 2) for i in range(12)])
    flow = horn_schunck(frames)
    assert flow.shape == (11, 2, 96, 96)
    for i in (0, 7, 8, 10):
        assert torch.allclose(flow[i], horn_schunck(frames[i : i + 2])[0], atol=1e-4)


def test_nothing_moves():
    assert horn_schunck(scene()[None].expand(3, -1, -1)).abs().max() < 1e-4
    with pytest.raises(ValueError, match="at least two pictures"):
        horn_schunck(scene()[None])


def test_smoothness_flattens():
    picture = scene()
    frames = torch.stack([seen(picture, 0, 0), seen(picture, 2, 1).roll(1, 0)])
    rough, smooth = (horn_schunck(frames, smoothness=s).diff(dim=-1).abs().mean() for s in (5.0, 100.0))
    assert smooth < rough
