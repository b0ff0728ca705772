"""Pretrained encoders that stay as they are, or in part, or learn at rates of their own."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, did_you_mean, number

ALL = "all"
DTYPES = ("float32", "bfloat16")


class Frozen(nn.Module):
    """An encoder that does not train: its parameters get no gradient, its statistics do not move.

    It is in evaluation mode throughout (no dropout, running statistics of batch normalisation).

    Args:
        encoder: maps (batch, ...) to (batch, dim).
        dtype: what its matrices and kernels are kept and multiplied in: "float32", or "bfloat16" for half the memory
            and about three significant digits. Norms, statistics, biases and the feature stay in float32; so does what
            an exported file computes, by the same weights.
        reuse: let ``Trainer.fit`` compute the features of the training and validation samples once, before the
            first epoch, instead of reading and encoding the same inputs every epoch. The features are those of
            evaluation, so this modality is trained without augmentation, and methods that mix or
            perturb inputs do so with its features. They stay in memory: (n, dim) numbers in float32.

    Raises:
        ValueError: for an unknown ``dtype``; ``reuse`` with an encoder that does not say how wide its feature is.
    """

    def __init__(self, encoder: nn.Module, *, reuse: bool = False, dtype: str = "float32"):
        super().__init__()
        self.encoder, self.reuse = encoder.requires_grad_(False), reuse
        self.dtype = choice("dtype", dtype, DTYPES)
        if dtype == "bfloat16":
            self._keep_in(torch.bfloat16)
        if isinstance(dim := getattr(encoder, "dim", None), int):
            self.dim = dim
        elif reuse:
            raise ValueError(f"reuse=True: set {type(encoder).__name__}.dim to the width of its feature.")
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Evaluation mode, whatever is asked for."""
        super().train(False)
        return self

    def _keep_in(self, dtype: torch.dtype) -> None:
        for p in self.encoder.parameters():
            if p.ndim > 1 and p.is_floating_point():
                p.data = p.data.to(dtype)

    def prepare_export(self) -> None:
        """From now on compute in float32, as all runtimes do; the weights stay what they were rounded to."""
        self._keep_in(torch.float32)
        self.dtype = "float32"

    def is_feature(self, shape: Sequence[int]) -> bool:
        """Whether an input of this shape is taken for features that were computed before."""
        return self.reuse and len(shape) == 2 and shape[1] == self.dim

    def forward(self, x: Tensor) -> Tensor:
        if x.is_floating_point() and self.is_feature(x.shape):
            return x
        if self.dtype == "float32":
            return self.encoder(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.encoder(x).float()


class FineTuned(nn.Module):
    """An encoder of which parts stay as they are, and parts learn at rates of their own.

    Parts are named as in ``named_modules()`` of the encoder's ``net`` (of the encoder itself where it has
    none): ``"layer4"`` in a ResNet, ``"encoder.layer.11"`` in BERT, ``"Mixed_5c"`` in I3D. What is frozen
    gets no gradient and is in evaluation mode throughout, so its batch normalisation keeps its statistics.
    "Before" is the order in which the parts were registered, which in these networks is that of the data.

    >>> from counterpoise.encoders import CNN, FineTuned
    >>> encoder = FineTuned(CNN(dim=8), until="layers.8", lr={"all": 0.1})  # trains the last convolution on
    >>> [name for name, p in encoder.named_parameters() if p.requires_grad]
    ['encoder.layers.8.weight', 'encoder.layers.9.weight', 'encoder.layers.9.bias']

    Args:
        encoder: maps (batch, ...) to (batch, dim).
        freeze: names of the parts that are frozen; ``"all"`` stands for everything.
        until: freeze everything before this part.
        last: freeze everything before the last so many blocks: stages of a ResNet, layers of a transformer,
            Inception modules of I3D. 0 freezes everything.
        lr: part -> factor on the learning rate, ``"all"`` for every part that is not named more
            precisely. Schedules and what a method asks of the modality multiply on top.

    Raises:
        ValueError: for a part that is not there, a factor below 0, an encoder whose blocks are not
            apparent, or more than one of ``freeze``, ``until`` and ``last``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        freeze: Sequence[str] = (),
        until: str | None = None,
        last: int | None = None,
        lr: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.freeze, self.until, self.last, self.lr = tuple(freeze), until, last, dict(lr or {})
        if isinstance(dim := getattr(encoder, "dim", None), int):
            self.dim = dim
        if isinstance(freeze, str):
            raise ValueError(f"freeze must be a list of names; got {freeze!r}. Pass freeze=[{freeze!r}].")
        if bool(freeze) + (until is not None) + (last is not None) > 1:
            raise ValueError("Give one of freeze, until and last.")
        net = self._net
        for name in (*self.freeze, *self.lr):
            _require(net, name)
        for name, factor in self.lr.items():
            number(f"lr[{name!r}]", factor, low=0)
        self._frozen = self.freeze if last is None and until is None else _before(net, self._first(net))
        for name, p in net.named_parameters():
            if any(_inside(name, part) for part in self._frozen):
                p.requires_grad_(False)
        if ALL in self._frozen:
            encoder.requires_grad_(False)  # with what is beside ``net``
        self.train(self.training)

    @property
    def _net(self) -> nn.Module:
        return net_of(self.encoder)

    def _first(self, net: nn.Module) -> str | None:
        """The part at which training begins; None for nowhere."""
        if self.until is not None:
            return _require(net, self.until)
        blocks = blocks_of(self.encoder)
        assert self.last is not None
        number("last", self.last, low=0, high=len(blocks))
        return blocks[len(blocks) - self.last] if self.last else None

    def train(self, mode: bool = True) -> FineTuned:
        """The mode for what trains; evaluation mode for what is frozen."""
        super().train(mode)
        if ALL in self._frozen:
            self.encoder.train(False)
        for name, module in self._net.named_modules():
            if any(_inside(name, part) for part in self._frozen):
                module.training = False
        return self

    def lr_factors(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Each parameter with the factor on its learning rate, which the trainer's optimizer applies."""
        net = self._net
        of = {id(p): name for name, p in net.named_parameters()}
        for p in self.encoder.parameters():
            parts = [part for part in self.lr if _inside(of.get(id(p), ""), part)]
            nearest = max(parts, key=lambda part: -1 if part == ALL else len(part), default=None)
            yield p, 1.0 if nearest is None else self.lr[nearest]

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def _inside(name: str, part: str) -> bool:
    """Whether a module or parameter is the part or inside it: by whole names, not by how they begin."""
    return part == ALL or name == part or name.startswith(f"{part}.")


def _require(net: nn.Module, part: str) -> str:
    known = [name for name, _ in (*net.named_modules(), *net.named_parameters()) if name]
    if part != ALL and part not in known:  # a network has hundreds: list those at the top, and the nearest
        near = difflib.get_close_matches(part, known, n=1)
        raise ValueError(did_you_mean("part of the encoder", part, {*near, *(n for n in known if "." not in n)}))
    return part


def _before(net: nn.Module, first: str | None) -> tuple[str, ...]:
    """Names of what was registered before ``first``: whole modules, and parameters of those that contain it."""
    if first is None or first == ALL:
        return (ALL,) if first is None else ()
    names: list[str] = []
    path = ""
    for step in first.split("."):
        module = net.get_submodule(path)
        start = f"{path}." if path else ""
        names += [start + name for name, _ in module.named_parameters(recurse=False) if name != step]
        children = [name for name, _ in module.named_children()]
        names += [start + name for name in children[: children.index(step)]] if step in children else []
        path = start + step
    return tuple(names)


def net_of(encoder: nn.Module) -> nn.Module:
    """The network whose parts are named: the encoder's ``net``, or itself where it has none."""
    net = getattr(encoder, "net", None)
    return net if isinstance(net, nn.Module) else encoder


def blocks_of(encoder: nn.Module) -> tuple[str, ...]:
    """Names of the blocks of an encoder's network (``net_of``), first to last.

    They are what the encoder lists as ``blocks``; layer1, layer2, ... of a ResNet; else the entries of the
    outermost list of modules of one class, as the layers of a transformer.

    Raises:
        ValueError: they are not apparent.
    """
    net, stated = net_of(encoder), getattr(encoder, "blocks", None)
    if isinstance(stated, tuple):
        return stated
    children = [name for name, _ in net.named_children()]
    if "layer1" in children:
        return tuple(name for name in children if name.startswith("layer"))
    for path, module in sorted(net.named_modules(), key=lambda pair: pair[0].count(".") + bool(pair[0])):
        entries = list(module.children())
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(entries) > 1 and len({*map(type, entries)}) == 1:
            return tuple(f"{path}.{name}" if path else name for name, _ in module.named_children())
    raise ValueError(
        f"last: the blocks of {type(encoder).__name__} are not apparent. Name the part at which training "
        f"begins, until=..., out of: {', '.join(children)}."
    )
