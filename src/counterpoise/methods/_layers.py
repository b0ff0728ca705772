"""Which layers of two branches of a model belong together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from counterpoise._checks import did_you_mean, number
from counterpoise.functional.spectrum import Layer, input_shape, is_supported
from counterpoise.model import MultimodalModel

Scope = float | str | Sequence[str]


def branch(model: MultimodalModel, modality: str) -> nn.ModuleDict:
    """Encoder and head of one modality: what its own prediction runs through."""
    return nn.ModuleDict({"encoder": model.encoders[modality], "head": model.head_of(modality)})


def branch_layers(model: MultimodalModel, modality: str) -> dict[str, Layer]:
    """The linear and convolutional layers of a branch, from input to output (in order of registration).

    Names start with ``encoder`` or ``head``, as in ``encoder.layer4.1.conv2`` or ``head.0``.
    """
    return {name: module for name, module in branch(model, modality).named_modules() if is_supported(module)}


def layers_in_scope(model: MultimodalModel, modality: str, scope: Scope) -> list[str]:
    """Names of the layers of a branch that ``scope`` means.

    Args:
        model: the model.
        modality: whose branch.
        scope: "head"; names of layers; or a share of the branch's parameters in [0, 1]: layers are added
            from the output backwards, and the number of them is the one whose share of the parameters
            comes nearest (the fewer of two equally near).
    """
    layers = branch_layers(model, modality)
    if scope == "head":
        return [name for name in layers if name.split(".")[0] == "head"]
    if not isinstance(scope, int | float):
        return [name for name in layers if name in ([scope] if isinstance(scope, str) else scope)]
    total = sum(p.numel() for p in branch(model, modality).parameters())
    deep, best, used = list(layers)[::-1], 0, 0
    distance = number("scope", scope, low=0, high=1) * total
    for count, name in enumerate(deep, start=1):
        used += sum(p.numel() for p in layers[name].parameters())
        if abs(used - scope * total) < distance:
            best, distance = count, abs(used - scope * total)
    return deep[:best]


def check_scope(model: MultimodalModel, scope: Scope) -> None:
    """ValueError when ``scope`` names a layer that no branch has, or is a share out of range."""
    if isinstance(scope, int | float):
        number("scope", scope, low=0, high=1)
        return
    known = {name for m in model.modalities for name in branch_layers(model, m)}
    for name in [scope] if isinstance(scope, str) else scope:
        if name not in known and scope != "head":
            raise ValueError("scope: " + did_you_mean("layer", name, ["head", *known] if scope == name else known))


def partners(model: MultimodalModel, source: str, target: str) -> dict[str, str]:
    """Layers of ``target``'s branch -> the layers of ``source``'s branch with inputs of the same kind.

    Encoder layers match by name, head layers by their position counted from the output. A pair counts
    only when both layers are of one type with one shape on the input side.
    """
    ours, theirs = branch_layers(model, target), branch_layers(model, source)
    matched = {name: name for name in ours if name in theirs and name.split(".")[0] == "encoder"}
    head, other = ([n for n in names if n.split(".")[0] == "head"][::-1] for names in (ours, theirs))
    matched.update(zip(head, other, strict=False))  # from the output back, as far as the shorter one goes

    def alike(a: Layer, b: Layer) -> bool:
        return type(a) is type(b) and a.weight.shape[1:] == b.weight.shape[1:] and input_shape(a) == input_shape(b)

    return {name: matched[name] for name in ours if name in matched and alike(ours[name], theirs[matched[name]])}


def paired(model: MultimodalModel, source: str, target: str, scope: Scope) -> dict[str, str]:
    """Layers of ``target`` in scope -> their partners in ``source``; ValueError when none has one."""
    chosen, partner_of = layers_in_scope(model, target, scope), partners(model, source, target)
    pairs = {name: partner_of[name] for name in chosen if name in partner_of}
    if chosen and not pairs:
        raise ValueError(
            f"scope={scope!r}: no layer of {source} has inputs of the same size as its partner in {target}, "
            f"so {source} cannot act on {target}. Pairs there are: {', '.join(partner_of) or 'none'}. Name some of "
            f"them in scope, leave {source}->{target} out of directions, or give both branches alike heads."
        )
    return pairs
