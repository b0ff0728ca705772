"""``Checkpointed``: the same training with less memory; bit for bit, statistics and random numbers included."""

import copy
import weakref

import pytest
import torch
from torch import nn

from counterpoise._checks import settings
from counterpoise.encoders import (
    CNN,
    Checkpointed,
    FineTuned,
    Frozen,
    FTTransformer,
    Projected,
    ResNet18,
    SequenceTransformer,
    TextGRU,
)
from counterpoise.functional import frozen_statistics
from counterpoise.functional.statistics import lone_sample

torch.set_num_threads(1)


def blocks():
    """Blocks that draw random numbers and keep running statistics of two kinds."""
    one = [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Tanh()]
    return nn.Sequential(*[nn.Sequential(*copy.deepcopy(one)) for _ in range(3)])


def instance():
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    return nn.Sequential(nn.Conv1d(1, 3, 3), norm, nn.Dropout(0.2), nn.Flatten(), nn.LazyLinear(4))


ENCODERS = {
    "blocks": (blocks, torch.randn(5, 6)),
    "instance": (instance, torch.randn(5, 1, 8)),
    "cnn": (lambda: CNN(dim=8), torch.randn(4, 1, 16, 16)),
    "fine-tuned": (lambda: FineTuned(ResNet18(1), last=2, lr={"layer4": 0.1}), torch.randn(3, 1, 24, 24)),
    "projected": (lambda: Projected(SequenceTransformer(6, 8), dim=3), torch.randn(4, 5, 6)),
    "table": (lambda: FTTransformer(5), torch.randn(4, 5)),
    "text": (lambda: TextGRU(vocab_size=30), torch.randint(1, 30, (4, 7))),
}


def step(encoder, x, *, passes=1):
    """Feature, gradients, tensors and the next random number of a training step."""
    torch.manual_seed(5)
    z = encoder.train()(x)
    for i in range(passes):
        z.square().sum().backward(retain_graph=i < passes - 1)
    state = {name.removeprefix("encoder."): t.clone() for name, t in encoder.state_dict().items()}
    return [z, torch.rand(1), *[p.grad for p in encoder.parameters()], *[state[n] for n in sorted(state)]]


@pytest.mark.parametrize(("name", "passes"), [*((name, 1) for name in ENCODERS), ("blocks", 2), ("text", 2)])
def test_bit_for_bit_as_without(name, passes):
    make, x = ENCODERS[name]
    plain = make()
    plain(x)  # lazy layers
    checkpointed = Checkpointed(copy.deepcopy(plain))
    if name in ("fine-tuned", "projected"):  # these add a level to the names of their own
        names = [n.removeprefix("encoder.") for n in checkpointed.state_dict()]
        assert names == list(plain.state_dict())
        kept = [step(e, x, passes=passes)[: 2 + len(list(plain.parameters()))] for e in (plain, checkpointed)]
        kept = [[*k, *e.state_dict().values()] for k, e in zip(kept, (plain, checkpointed), strict=True)]
    else:
        kept = [step(e, x, passes=passes) for e in (plain, checkpointed)]
    for a, b in zip(*kept, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert torch.equal(plain.eval()(x), checkpointed.eval()(x))


def test_running_statistics_move_once():
    encoder = Checkpointed(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    encoder(torch.randn(8, 3)).square().sum().backward()
    assert encoder.encoder[1].num_batches_tracked == 1
    assert encoder.encoder[1].running_mean.abs().sum() > 0


def test_statistics_that_were_frozen_in_the_first_pass_are_so_in_the_second():
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    checkpointed, x = Checkpointed(copy.deepcopy(plain)), torch.randn(8, 3)
    for encoder in (plain, checkpointed):
        with frozen_statistics(encoder):
            z = encoder(x)
        z.square().sum().backward()
        assert [*encoder.modules()][-1].num_batches_tracked == 0
        assert [*encoder.modules()][-1].track_running_stats
    for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_a_sample_that_is_alone():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    checkpointed, x = Checkpointed(copy.deepcopy(plain)), torch.randn(1, 3)
    for encoder in (plain, checkpointed):
        with lone_sample(encoder):
            z = encoder(x)
        z.square().sum().backward()
    for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    assert all(m.training for m in checkpointed.modules())


class Noted(nn.Module):
    """Notes what its backward pass needs."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def forward(self, x):
        z = 1.5 * x
        self.kept.append(weakref.ref(z))
        return z.square()


@pytest.mark.parametrize("wrap", [Checkpointed, lambda e: Projected(Checkpointed(_wide(e)), dim=2)])
def test_what_is_inside_a_block_is_not_kept(wrap):
    plain, x = nn.Sequential(nn.Linear(3, 3), nn.Sequential(*[Noted() for _ in range(2)])), torch.randn(4, 3)
    checkpointed = wrap(copy.deepcopy(plain))
    for encoder, stays in ((plain, True), (checkpointed, False)):
        z = encoder(x)
        noted = [m for m in encoder.modules() if isinstance(m, Noted)]
        assert [ref() is not None for m in noted for ref in m.kept] == [stays, stays]
        z.sum().backward()
        assert [len(m.kept) for m in noted] == [2 - stays] * 2  # each computed once more


def _wide(encoder):
    encoder.dim = 3
    return encoder


def test_forward_of_one_instance_stays_its_own():
    block = nn.Linear(3, 3)
    block.forward = lambda x: 2 * x
    encoder = Checkpointed(nn.Sequential(block, nn.Linear(3, 3), nn.Linear(3, 3)))
    assert encoder._blocks == ("0", "1", "2")
    x = torch.randn(2, 3, requires_grad=True)
    encoder(x).sum().backward()
    assert "forward" not in vars(encoder.encoder[1])
    assert torch.equal(block(x), 2 * x)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder(torch.randn(2, 4))
    assert "forward" not in vars(encoder.encoder[1])


def test_it_is_spelled_and_says_how_wide_it_is():
    encoder = CNN(dim=8)
    assert settings(Checkpointed(encoder)) == {"encoder": encoder}
    assert Checkpointed(encoder).dim == 8
    assert not hasattr(Checkpointed(nn.Linear(3, 7)), "dim")
    with pytest.raises(ValueError, match="leave Checkpointed out"):
        Checkpointed(Frozen(CNN(dim=8)))
    copied = copy.deepcopy(Checkpointed(encoder))
    copied(torch.randn(2, 1, 9, 9)).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
