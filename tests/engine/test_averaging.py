"""Gradients over two replicas, in buckets: the mean of what each has, whatever part of the model each uses."""

import pytest
import torch
from test_replicas import on_two
from torch import nn
from torch.utils.checkpoint import checkpoint

from counterpoise.engine import Trainer, averaging, make_fabric
from counterpoise.engine.step import Step
from counterpoise.methods import Joint
from counterpoise.testing import task, tiny_model
from counterpoise.types import Batch

TWO = ("first", "second")


class Silent(torch.autograd.Function):
    """Its input is part of the graph and gets no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grads):
        return None


def weights():
    """Six, of different sizes and one of another dtype, the first of them in channels-last layout."""
    torch.manual_seed(0)
    sizes = {"a": (3, 2, 2, 2), "b": (40,), "c": (5, 4), "d": (7,), "e": (30,), "f": (2, 3)}
    made = {n: nn.Parameter(torch.randn(s, dtype=torch.float64 if n == "d" else None)) for n, s in sizes.items()}
    made["a"] = nn.Parameter(made["a"].detach().to(memory_format=torch.channels_last))
    return made


def scenario(name, w, rank):
    """The losses that replica ``rank`` goes back through, one after the other."""
    square = {n: (p.double() ** 2).sum() * (1 + rank) for n, p in w.items()}
    if name == "all":
        return [sum(square.values())]
    if name == "here and there":  # replica 0 does not use a and f, replica 1 not c; nobody uses e
        return [sum(square[n] for n in ("bcd" if rank == 0 else "abdf"))]
    if name == "nothing in common":
        return [square["a"] if rank == 0 else square["f"]]
    if name == "accumulated":
        return [square["a"] + square["b"], square["b"] * 3 + square["c"], square["a"] * square["f"]]
    assert name == "no gradient comes"
    return [square["b"] + Silent.apply(w["c"]).sum() + (Silent.apply(w["d"]).sum() if rank else square["d"])]


class Alone:
    """What `Step.backward` asks of a run."""

    def __init__(self, fabric, parameters):
        self.fabric, self.parameters = fabric, parameters
        self.model = self.task = self.phase = self.generator = self.loss_scale = None
        self.phase_index = self.epoch = 0

    def trainable(self):
        return self.parameters


def gradients(fabric, names, bucket):
    averaging.BUCKET = bucket
    found = {}
    for name in names:
        w = weights()
        step = Step(Alone(fabric, list(w.values())), Batch({}, torch.zeros(0), torch.zeros(0), None), 0, 1)
        for loss in scenario(name, w, fabric.global_rank):
            step.backward(loss, retain=True)
        found |= {f"{name}: {n}": p.grad for n, p in w.items() if p.grad is not None}
        assert w["a"].grad is None or w["a"].grad.stride() == w["a"].stride()
    return found


SCENARIOS = ("all", "here and there", "nothing in common", "accumulated", "no gradient comes")


@pytest.mark.parametrize("bucket", [1, 200, 25 * 2**20])
def test_the_mean_of_what_each_replica_has(bucket):
    zero, one = on_two(gradients, SCENARIOS, bucket)
    assert zero.keys() == one.keys()
    expected = {}
    for name in SCENARIOS:
        sums = {}
        for rank in range(2):
            w = weights()
            for loss in scenario(name, w, rank):
                loss.backward(retain_graph=True)
            for n, p in w.items():
                if p.grad is not None:
                    sums[n] = sums.get(n, 0) + p.grad / 2
        expected |= {f"{name}: {n}": g for n, g in sums.items()}
    assert zero.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(zero[name], one[name])
        assert zero[name].dtype == value.dtype
        torch.testing.assert_close(zero[name], value)


def sent_early(fabric):
    """How many of the buckets were on their way when the gradient of the first weight arrived."""
    averaging.BUCKET = 1
    layers = nn.Sequential(*[nn.Linear(3, 3, bias=False) for _ in range(6)])
    parameters = list(layers.parameters())
    pass_ = averaging.SummedBackward(loss := layers(torch.ones(2, 3)).sum(), parameters, fabric)
    early = []
    parameters[0].register_post_accumulate_grad_hook(lambda _: early.append(len(pass_._sent)))
    with pass_:
        loss.backward()
    return torch.tensor([*early, len(pass_._sent)])


def test_buckets_leave_while_the_backward_pass_runs():
    for found in on_two(sent_early):
        assert found.tolist() == [5, 6]


def means(fabric, bucket):
    averaging.BUCKET = bucket
    given = [p.detach() * (1 + 2 * fabric.global_rank) for p in weights().values()]
    averaging.average_(given, fabric)
    return dict(enumerate(given))


@pytest.mark.parametrize("bucket", [1, 200, 25 * 2**20])
def test_tensors_are_replaced_by_their_mean(bucket):
    for found in on_two(means, bucket):
        for value, w in zip(found.values(), weights().values(), strict=True):
            torch.testing.assert_close(value, w.detach() * 2)


def test_buckets_keep_to_their_size_and_dtype(monkeypatch):
    monkeypatch.setattr(averaging, "BUCKET", 170)
    got = [[tuple(t.shape) for t in bucket] for bucket in averaging._buckets(weights().values())]
    assert got == [[(3, 2, 2, 2)], [(40,)], [(5, 4)], [(7,)], [(30,), (2, 3)]]
    assert averaging._buckets([]) == []


def hidden(fabric):
    layer, x = nn.Linear(3, 3), torch.ones(2, 3, requires_grad=True)
    loss = checkpoint(layer, x, use_reentrant=True).sum()
    try:
        with averaging.SummedBackward(loss, list(layer.parameters()), fabric):
            loss.backward()
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_gradient_that_the_graph_does_not_show_is_refused():
    for said in on_two(hidden):
        assert "use_reentrant=False" in said


def one_parameter_twice(fabric):
    """As `hidden`, but what is checkpointed is used outside too, so that the graph shows it."""
    w, x = nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)
    loss = (checkpoint(lambda x: x * w, x, use_reentrant=True) * w).sum()
    try:
        with averaging.SummedBackward(loss, [w], fabric):
            loss.backward()
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_gradient_that_comes_in_two_parts_is_refused():
    for said in on_two(one_parameter_twice):
        assert "use_reentrant=False" in said


def turns(fabric):
    """Bytes that a step of one modality sends: nothing of the other."""
    sizes = []
    send = averaging._send
    averaging._send = lambda tensors: sizes.append(sum(t.numel() for t in tensors)) or send(tensors)
    model = tiny_model(Joint(), TWO, "Late", norm=False)
    trainer = Trainer(model, Joint(), batch_size=18, progress=False, fabric=fabric)
    batch = next(trainer.current.loaders.get(task(TWO).train).batches(TWO))
    step = Step(trainer.current, batch, 0, 1)
    step.backward(step.unimodal_loss(step.forward(("first",)), "first"))
    used = model.parameters_of("first")
    return torch.tensor([sum(sizes), sum(p.numel() for p in used) + len(used)])


def test_only_what_someone_uses_is_sent():
    for sent, used in on_two(turns):
        assert sent == used


def test_one_process_sends_nothing():
    given = [torch.ones(2)]
    averaging.average_(given, make_fabric(accelerator="cpu"))
    assert given[0].tolist() == [1, 1]
