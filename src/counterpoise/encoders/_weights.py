"""Weights from a file, fitted to a network; what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from counterpoise._files import read_tensors

T = TypeVar("T")


def read_weights(path: str, where_from: str) -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save`` or safetensors; nothing in it is executed.

    Args:
        path: the file. A state dict inside ``{"state_dict": ...}`` or ``{"model": ...}`` is found, and the
            prefix ``module.`` of parallel training is taken off.
        where_from: where such a file is to be had, for the message when there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else than weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"weights={path!r}: there is no such file. {where_from}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = read_tensors(file)
    except Exception as error:  # of safetensors, which has an exception of its own
        raise ValueError(f"weights={path!r} is no file of weights, or damaged: {error}") from error
    for name in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"weights={path!r} must hold a state dict (name -> tensor); it holds {type(state).__name__}.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def adopt(
    net: nn.Module, state: Mapping[str, Tensor], source: str, *, first: str | None = None, leave: Sequence[str] = ()
) -> None:
    """Load weights into a network.

    Args:
        net: where to.
        state: what to load.
        source: what to call them in messages.
        first: name of the first convolution's weight, whose input channels are averaged where their number
            differs, see ``for_channels``.
        leave: beginnings of names that are neither read from ``state`` nor required.

    Raises:
        ValueError: names or shapes differ.
    """
    own = net.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(tuple(leave))}
    if first is not None and first in state and first in own and state[first].shape[1] != own[first].shape[1]:
        state[first] = for_channels(state[first], own[first].shape[1])
    required = [n for n in own if not n.startswith(tuple(leave)) and not n.endswith("num_batches_tracked")]
    problems = {
        "missing": [n for n in required if n not in state],
        "not part of it": [n for n in state if n not in own],
        "of another shape": [n for n, v in state.items() if n in own and v.shape != own[n].shape],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{kind}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            for kind, names in problems.items()
            if names
        )
        raise ValueError(f"weights={source!r} are those of another network. {listed}.")
    net.load_state_dict(state, strict=False)


def for_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution (out, in, ...) for another number of input channels: (out, channels, ...).

    Every channel gets the mean over the old ones, scaled so that an input whose channels are all
    equal gives what it gave before.
    """
    mean = weight.mean(1, keepdim=True) * (weight.shape[1] / channels)
    return mean.expand(-1, channels, *weight.shape[2:]).clone()


def torchvision_state(name: str, weights: str) -> dict[str, Tensor]:
    """The state dict that ``weights`` names: a file, or one of torchvision's."""
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    if weights not in known.__members__:
        names = ", ".join(repr(w) for w in known.__members__ if w != "DEFAULT")
        return read_weights(weights, f"Give the path of a state dict, or a name that torchvision downloads: {names}.")
    chosen = known[weights]
    try:
        return dict(chosen.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise RuntimeError(
            f"torchvision could not download {weights!r} of {name}: {error}. Without a connection, get {chosen.url} "
            "elsewhere and pass its path: weights='path/to/" + chosen.url.rsplit("/", 1)[1] + "'."
        ) from error


def from_hub(name: str, load: Callable[[], T]) -> T:
    """What ``load`` gets of a model of Transformers; RuntimeError when it is neither here nor to be downloaded."""
    try:
        return load()
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"transformers could not load {name!r}: {error}. Without a connection, give the path of a folder that "
            "holds the model (save_pretrained writes one), or download it into the cache beforehand."
        ) from error
