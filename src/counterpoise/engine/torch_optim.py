"""Any optimizer of PyTorch, or of another package, as settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch

from counterpoise._checks import did_you_mean, number
from counterpoise._names import class_of, named
from counterpoise.engine.optim import Optimizer

LINEAR = ("ASGD", "SGD")
"""Those whose step is proportional to the gradient; of all others a constant factor on it cancels out, or nearly."""
UNFIT = {
    "LBFGS": "it evaluates the loss several times a step",
    "Muon": "it takes matrices only, and models have biases",
    "SparseAdam": "it takes sparse gradients only",
}


class TorchOptim(Optimizer):
    """A class of ``torch.optim``, or one from elsewhere by its import path.

    >>> TorchOptim("RMSprop", lr=1e-3, options={"alpha": 0.9}).lr
    0.001

    Args:
        name: of the class in ``torch.optim``, in any case; or an import path such as ``package.module.Class``.
        lr: learning rate, >= 0; the class's own default when None.
        options: further arguments of the class, by name.

    Raises:
        ValueError: for an unknown class or argument, one that cannot train so, and no learning rate where the class
            has no default.
    """

    def __init__(self, name: str, lr: float | None = None, options: Mapping[str, Any] | None = None):
        self.name, self.options = name, dict(options or {})
        self._class = torch_class(name)
        parameters = inspect.signature(self._class).parameters
        for option in self.options:
            if option not in parameters or option in ("params", "lr"):
                others = [known for known in parameters if known not in ("params", "lr")]
                raise ValueError(did_you_mean(f"option of {name}", option, others))
        default: Any = parameters["lr"].default if "lr" in parameters else inspect.Parameter.empty
        if lr is None and default is inspect.Parameter.empty:
            raise ValueError(f"{name} has no learning rate of its own: pass lr=...")
        self.lr = float(number("lr", float(default) if lr is None else lr, low=0))
        self.scale_free = scale_free(self._class)

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return self._class(list(groups), lr=self.lr, **self.options)


def scale_free(optimizer: Any) -> bool:
    """Whether a constant factor on the gradient cancels out in this class, as far as it is known."""
    return optimizer.__module__.startswith("torch.optim") and optimizer.__name__ not in LINEAR


def torch_names() -> dict[str, type[torch.optim.Optimizer]]:
    """Name -> class, of everything in ``torch.optim`` that can train here."""
    classes = {name: cls for name, cls in vars(torch.optim).items() if inspect.isclass(cls)}
    leave = (torch.optim.Optimizer.__name__, *UNFIT)
    return {n: c for n, c in classes.items() if issubclass(c, torch.optim.Optimizer) and n not in leave}


def torch_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer class of this name or import path; ValueError when there is none, or it cannot be used."""
    package, _, bare = name.rpartition(".")
    for unfit, reason in UNFIT.items():
        if bare.casefold() == unfit.casefold() and (not package or package.startswith("torch.optim")):
            raise ValueError(f"optimizer {unfit} cannot train here: {reason}. Known: {', '.join(torch_names())}.")
    folded = {known.casefold(): cls for known, cls in torch_names().items()}
    if not package:
        if name.casefold() not in folded:
            raise ValueError(did_you_mean("optimizer", name, torch_names()))
        return folded[name.casefold()]
    try:
        resolved = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"optimizer {name!r} cannot be imported: {error}.") from error
    if not inspect.isclass(resolved) or not issubclass(resolved, torch.optim.Optimizer):
        raise ValueError(f"optimizer {name!r} must be a subclass of torch.optim.Optimizer; it is {resolved!r}.")
    return resolved


def optimizer_of(value: Any) -> Any:
    """Settings from a name, a class of ``torch.optim`` or a ``functools.partial`` of one; anything else as it is.

    Raises:
        ValueError: for an unknown name, and what is wrong with the options of a partial.
    """
    if isinstance(value, str):
        ours = named("optimizer")
        if value.casefold() in map(str.casefold, ours) and value.casefold() != TorchOptim.__name__.casefold():
            return class_of("optimizer", value)()
        if "." not in value and value.casefold() not in map(str.casefold, (*torch_names(), *UNFIT)):
            raise ValueError(did_you_mean("optimizer", value, {*ours, *torch_names()} - {TorchOptim.__name__}))
        return TorchOptim(value)
    bound = isinstance(value, partial) and not value.args
    cls, options = (value.func, dict(value.keywords)) if bound else (value, {})
    if not inspect.isclass(cls) or not issubclass(cls, torch.optim.Optimizer):
        return value
    path = cls.__name__ if cls in torch_names().values() else f"{cls.__module__}.{cls.__qualname__}"
    return TorchOptim(path, options.pop("lr", None), options)
