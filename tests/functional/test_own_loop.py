"""The pieces of IGM in a training loop of one's own: two plain networks, no engine."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from counterpoise.functional import ascended, collect_inputs, flat_directions, frozen_statistics, project_inputs

TAU = 1.0


def net(width):
    return nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def train(model, batches, rho, T=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    params = list(model.parameters())
    for x, y in batches:
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), params)
        with ascended(params, grads, rho), frozen_statistics(model):
            F.cross_entropy(model(x), y).backward()
        if T is not None:
            model[3].weight.grad = project_inputs(model[3].weight.grad, T)
        optimizer.step()
        optimizer.zero_grad()


def test_igm_without_the_engine():
    torch.manual_seed(0)
    audio, video = net(5), net(4)
    y = torch.arange(24) % 3
    audio_batches = [(F.one_hot(y, 5) + 0.3 * torch.randn(24, 5), y) for _ in range(6)]
    video_batches = [(F.one_hot(y, 4) + 0.3 * torch.randn(24, 4), y) for _ in range(6)]

    train(audio, audio_batches, rho=0.05)
    assert audio[1].num_batches_tracked == 6
    audio.eval()
    with torch.no_grad(), collect_inputs({"fc": audio[3]}) as moments:
        for x, _ in audio_batches:
            audio(x)
    T = flat_directions(moments["fc"], TAU)

    # One step from the same weights with and without T: along what audio uses most, the step shrinks by e^-tau.
    start = {k: v.clone() for k, v in video.state_dict().items()}
    train(video, video_batches[:1], rho=0.05)
    free = (video[3].weight - start["3.weight"]).double()
    video.load_state_dict(start)
    train(video, video_batches[:1], rho=0.05, T=T)
    kept = (video[3].weight - start["3.weight"]).double()
    used = torch.linalg.eigh(moments["fc"]).eigenvectors[:, -1]
    torch.testing.assert_close(kept @ used, math.exp(-TAU) * (free @ used), rtol=1e-3, atol=1e-6)

    before = F.cross_entropy(video(video_batches[0][0]), y)
    train(video, 5 * video_batches, rho=0.05, T=T)
    assert F.cross_entropy(video(video_batches[0][0]), y) < before
