"""Configurations as files: YAML of plain values, of a size that fits in memory when it is written out."""

from __future__ import annotations

from typing import Any

import yaml

LIMIT = 10_000_000
"""Characters of the values of a file, what aliases repeat counted each time."""


def read_yaml(text: str) -> Any:
    """The values of a YAML text; nothing in it is executed.

    Raises:
        ValueError: no YAML, a name that stands twice in one mapping, values inside themselves, or aliases that make it
            larger than ``LIMIT``.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _size(node, {}) > LIMIT:
            raise ValueError(f"its aliases (*name) repeat so much that it has more than {LIMIT} characters")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Characters of the values below a node, aliases written out; ``known`` are those of nodes before."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError(f"the value of line {node.start_mark.line + 1} contains itself, by an alias (*name)")
        return size
    known[id(node)] = None
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ValueError(
                        f"{key.value!r} stands twice in one mapping, again in line {key.start_mark.line + 1}"
                    )
                seen.add(key.value)
            size += _size(key, known) + _size(value, known)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(value, known) for value in node.value)
    else:
        size += len(node.value)
    known[id(node)] = size
    return size
