"""A model from encoders and the name of a fusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeGuard, overload

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean, spelled, whole
from counterpoise._names import class_of
from counterpoise.data.split import Split, Splits
from counterpoise.encoders import default_encoder
from counterpoise.fusions import Fusion
from counterpoise.model import MultimodalModel
from counterpoise.task import SingleLabel, Task

if TYPE_CHECKING:
    from counterpoise.data.layout import Layout


@spelled
def build_model(
    encoders: Mapping[str, nn.Module | Callable[[], nn.Module] | str] | Split | Splits,
    fusion: str | Fusion | Callable[..., Fusion] = "Concat",
    *,
    num_classes: int | None = None,
    task: Task | None = None,
    heads: bool = False,
    pool: bool = False,
    example: Split | Splits | None = None,
    seed: int | None = None,
) -> MultimodalModel:
    """A model from one encoder per modality.

    >>> from counterpoise.data import digits
    >>> data = digits(size=100)
    >>> model = build_model(data)  # a default encoder for each modality, the task of the data
    >>> model = build_model({"audio": "CNN", "image": "MLP"}, "Late", example=data)

    Args:
        encoders: modality -> module mapping (batch, ...) to (batch, dim), in the order of the modalities; or a function
            that makes it; or the name of a class of ``counterpoise.encoders``, whose inputs ``example`` tells. A data
            set, or a part of one, gives each of its modalities the default encoder, and is the example.
        fusion: name of a class of ``counterpoise.fusions``; or what builds one, called as
            ``fusion(dims, num_classes)``, with ``heads=True`` where ``heads`` is (a class, or
            ``functools.partial(Late, rule="sum")``); or a fusion that is built already.
        num_classes: number of classes, when one of several is to be predicted.
        task: what is predicted, as ``data.task`` says it; instead of ``num_classes``. Without both the example tells.
        heads: give each modality a linear head of its own as well.
        pool: predict by a pool of the fused and the unimodal predictions, fitted on validation when training is over.
        example: data set, or a part of one, where to read what named encoders get, and a sample or two to find the
            width of encoders that do not say it in an attribute ``dim``.
        seed: of the initial weights of all that is made here, encoders too; PyTorch's own generator stays as it is.

    Raises:
        ValueError: for an unknown name, a width that cannot be found, encoders and fusion
            that do not fit, or a seed for what is made already.
    """
    example = _part(example)
    if isinstance(encoders, Split | Splits):
        example = _part(encoders)
        encoders = {m: partial(encoder_for, example, m) for m in example.modalities}
    if not encoders:
        raise ValueError("encoders: a model needs at least one modality; got none.")
    if not isinstance(encoders, Mapping):
        kind = type(encoders).__name__
        raise ValueError(f"encoders must map modalities to modules, as {{'audio': MLP(20)}}; got {kind}.")
    if task is None and num_classes is None and example is not None:
        task = example.task
    if (task is None) == (num_classes is None):
        raise ValueError("What is to be predicted? Pass task=data.task, or num_classes=... for one class of several.")
    if task is None and num_classes is not None:
        task = SingleLabel(whole("num_classes", num_classes, low=2))
    assert task is not None
    with torch.random.fork_rng(devices=[]) if seed is not None else nullcontext():
        if seed is not None:
            _refuse_made({**encoders, "fusion": fusion}, whole("seed", seed, low=0))
            torch.manual_seed(seed)
        made = {m: _made(m, encoder, example) for m, encoder in encoders.items()}
        dims = {m: _width(m, encoder, example) for m, encoder in made.items()}
        return MultimodalModel(made, _fusion(fusion, dims, task, heads), task=task, pool=pool)


def _refuse_made(parts: Mapping[str, object], seed: int) -> None:
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            raise ValueError(
                f"seed={seed} comes too late for {name!r}, which is made already. Pass what makes it, as in "
                f"{{{name!r}: lambda: {type(part).__name__}(...)}}, or leave seed out."
            )


@overload
def _part(data: None) -> None: ...
@overload
def _part(data: Split | Splits) -> Split: ...
def _part(data: Split | Splits | None) -> Split | None:
    """One part of a data set, to look at."""
    return data.train if isinstance(data, Splits) else data


def encoder_for(example: Split, modality: str) -> nn.Module:
    """The default encoder of what a sample of this modality looks like."""
    return encoder_of(example.layout(modality))


def encoder_of(layout: Layout) -> nn.Module:
    """The default encoder of samples of this layout."""
    return default_encoder(layout.kind, layout.shape, **layout.options)


def _made(modality: str, encoder: nn.Module | Callable[[], nn.Module] | str, example: Split | None) -> nn.Module:
    if isinstance(encoder, str):
        return _named(modality, encoder, example)
    made = encoder() if _makes(encoder) else encoder
    if not isinstance(made, nn.Module):
        given = f"the class {made.__name__}" if isinstance(made, type) else type(made).__name__
        how = "; make one: " + f"{made.__name__}(...)" if isinstance(made, type) else ""
        raise ValueError(f"encoders[{modality!r}] must be an nn.Module; got {given}{how}.")
    return made


def _makes(encoder: object) -> TypeGuard[Callable[[], nn.Module]]:
    """Whether it is a function that can be called without arguments."""
    if isinstance(encoder, type | nn.Module) or not callable(encoder):
        return False
    try:
        signature(encoder).bind()
    except TypeError:
        return False
    return True


def _named(modality: str, name: str, example: Split | None) -> nn.Module:
    """The encoder of this name for the inputs that the example has."""
    try:
        cls = class_of("encoder", name)
    except ValueError as error:
        raise ValueError(f"encoders[{modality!r}]: {error}") from None
    if example is None:
        raise ValueError(
            f"encoders[{modality!r}]: what {cls.__name__} gets is not known. Pass example=data, or make it: "
            f"{cls.__name__}(...)."
        )
    if modality not in example.modalities:
        raise ValueError("encoders: " + did_you_mean("modality", modality, example.modalities))
    try:
        return cls(**inputs_of(cls, example.layout(modality)))
    except TypeError as error:
        needs = f"encoders[{modality!r}]: {cls.__name__} needs options: {error}."
        raise ValueError(f"{needs} Pass {cls.__name__}(...) itself.") from error


def inputs_of(encoder: type[nn.Module], layout: Layout) -> dict[str, Any]:
    """Arguments of one of our encoders that the data determine."""
    steps = encoder.__name__.startswith("Sequence")
    told = {
        "in_dim": layout.shape[-1] if steps else math.prod(layout.shape),
        "channels": 1 if len(layout.shape) == 2 else layout.shape[0],
        "numbers": math.prod(layout.shape),
        **{n: value for n, value in layout.options.items() if n in ("vocab_size", "padding", "numbers", "levels")},
    }
    taken = signature(encoder.__init__).parameters
    return {name: value for name, value in told.items() if name in taken}


def _fusion(fusion: str | Fusion | Callable[..., Fusion], dims: dict[str, int], task: Task, heads: bool) -> Fusion:
    """The fusion for features of these widths."""
    if not isinstance(fusion, Fusion):
        if isinstance(fusion, str):
            fusion = class_of("fusion", fusion)
        assert callable(fusion)
        asked = {"heads": True} if heads else {}  # a builder's own choice of heads stands otherwise
        return fusion(dims, task.width, **asked)
    if fusion.dims != dims or fusion.num_classes != task.width:
        raise ValueError(
            f"fusion was built for widths {fusion.dims} and {fusion.num_classes} classes, the encoders give "
            f"{dims} and num_classes is {task.width}. Pass its class or name to have it built to fit."
        )
    if heads and not fusion.has_own_heads:
        raise ValueError("heads=True comes too late for a fusion that is built; build it with heads=True.")
    return fusion


def _width(modality: str, encoder: nn.Module, example: Split | None) -> int:
    """Width of the encoder's feature: what it says, else what it gives."""
    dim = getattr(encoder, "dim", None)
    if isinstance(dim, int) and not isinstance(dim, bool) and dim > 0:
        return dim
    if example is None:
        raise ValueError(
            f"encoders[{modality!r}] ({type(encoder).__name__}) does not say how wide its feature is. Set "
            "encoder.dim to that number, or pass example=<a split> to have a sample run through it."
        )
    if modality not in example.modalities:
        raise ValueError("example: " + did_you_mean("modality", modality, example.modalities))
    with torch.no_grad():
        z = _run(modality, encoder, _samples(modality, example))
    if not isinstance(z, Tensor) or z.ndim != 2:
        given = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"encoders[{modality!r}] must give features of shape (batch, dim); got {given}. Pool or flatten its output."
        )
    return z.shape[1]


def _samples(modality: str, example: Split) -> Tensor:
    """The first two samples that have the modality."""
    present = None if example.present is None else example.present.get(modality)
    rows = range(len(example)) if present is None else present.nonzero().flatten().tolist()
    if not rows:
        raise ValueError(f"example: no sample has modality {modality!r}. Pass a split that has one.")
    return example.batch(list(rows[:2]), modality, None)


def _run(modality: str, encoder: nn.Module, x: Tensor) -> object:
    """The encoder's output in evaluation mode; its modes are put back."""
    modes = {module: module.training for module in encoder.modules()}
    where = next(encoder.parameters(), torch.empty(0)).device
    encoder.eval()
    try:
        return encoder(x.to(where))
    except Exception as error:
        raise ValueError(
            f"encoders[{modality!r}] ({type(encoder).__name__}) fails on samples of shape {tuple(x.shape[1:])}: {error}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
