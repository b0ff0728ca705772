"""Writes a model into one file, once it was seen to compute the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import spelled
from counterpoise._extras import require
from counterpoise._files import writing
from counterpoise.data import Reader, Split
from counterpoise.exporting.facts import KEY, described
from counterpoise.exporting.graph import Graph, Named, mask_name
from counterpoise.exporting.tracing import BATCH, quiet, traced
from counterpoise.method import Method
from counterpoise.model import MultimodalModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Run = Callable[[Named, Named], list[Tensor]]

ENDINGS = (".onnx", ".pt2")
OPSET = 20
LARGEST = 2**31 - 2**24
"""Bytes of weights: a file of ONNX ends at 2 GiB."""
TOLERANCE = 1e-4
"""How far a runtime may be off, of the largest output; what fixes a batch size or a branch is off by far more."""


@spelled
def export(
    model: MultimodalModel,
    method: Method,
    path: str | PathLike[str],
    example: Split | Mapping[str, Any],
    *,
    readers: Mapping[str, Reader] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trained model, with its method's rule, into one file that runs without this package.

    Inputs are, for each modality that the method reads, ``m`` (batch, ...) and ``m.present`` (batch,) bool, False for
    samples that lack it; of a ``.pt2`` they are two dicts by modality. Outputs are ``fused.probabilities`` and
    ``fused.logits`` (batch, classes), or ``fused.numbers``, and the same of each modality, ``m.probabilities``. The
    batch can have any size. How inputs are made of files, the classes and all names are in the file as JSON
    (``Exported.facts``). Before it gets its name, the file is compared with the model on batches of 1 and 3.

    Args:
        model: trained.
        method: by which it was trained.
        path: ends in ``.onnx`` (the extra ``export``) or ``.pt2`` (for ``torch.export.load``, which unpickles: open
            such files only of people you trust).
        example: a split, or modality -> array or tensor (n, ...): what a sample looks like. None of it is in the file.
        readers: modality -> what makes a sample of a file or a text; None for those of the example.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        FileExistsError: there is such a file.
        ImportError: the extra is not installed.
        ValueError: another ending, an example that does not fit the model, or a part that cannot be exported, named.
    """
    path = _target(path, overwrite)
    graph = Graph(model, method)
    inputs = samples(example, graph.reads)
    graph.model.encode(inputs, graph.reads)  # says what does not fit
    readers = (example.readers if isinstance(example, Split) else {}) if readers is None else readers
    facts = json.dumps(described(graph, method, inputs, readers), default=str)
    present = {m: torch.ones(len(x), dtype=torch.bool) for m, x in inputs.items()}
    with torch.no_grad():
        graph(inputs, present)  # so that what is computed once is not recorded
    program = traced(graph, inputs, present)
    content, run = (_onnx if path.suffix == ".onnx" else _pt2)(graph, program, facts)
    _compared(graph, run, inputs)
    with writing(path, "wb") as file:
        file.write(content)
    return path


def samples(example: Split | Mapping[str, Any], modalities: tuple[str, ...]) -> dict[str, Tensor]:
    """Two samples of each modality on the CPU, as the model gets them: floats are float32."""
    inputs = {}
    for m in modalities:
        if m not in (example.modalities if isinstance(example, Split) else example):
            raise ValueError(f"example: the model reads modality {m!r}, which is not there.")
        x = _first(example, m) if isinstance(example, Split) else torch.as_tensor(example[m])
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"example[{m!r}] must be (n, ...) with at least one sample; got shape {tuple(x.shape)}.")
        x = x[:1].detach().cpu()
        inputs[m] = torch.cat([x, x]).to(torch.float32 if x.is_floating_point() else x.dtype)
    return inputs


def _first(split: Split, modality: str) -> Tensor:
    """(1, ...), the first sample that has the modality."""
    x = split.example(modality)
    if x is None:
        raise ValueError(f"example: no sample has the modality {modality!r}.")
    return x.unsqueeze(0)


def _target(path: str | PathLike[str], overwrite: bool) -> Path:
    path = Path(fspath(path))
    if path.suffix not in ENDINGS:
        raise ValueError(f"path must end in {' or '.join(ENDINGS)}; got {path.name!r}.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass overwrite=True to replace it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}.")
    return path


def _onnx(graph: Graph, program: ExportedProgram, facts: str) -> tuple[bytes, Run]:
    require("A file of ONNX", "onnx", "onnxruntime", "onnxscript")
    import onnxruntime

    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if size > LARGEST:
        raise ValueError(f"The weights are {size / 2**30:.1f} GiB, and a file of ONNX ends at 2. Export to .pt2.")
    inputs = [*graph.reads, *map(mask_name, graph.reads)]
    rows = {m: {0: BATCH} for m in graph.reads}
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                input_names=inputs,
                output_names=list(graph.outputs),
                dynamic_shapes=(rows, rows),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # of the exporter, which has many
        raise ValueError(f"ONNX has no name for something in the model; .pt2 may do. ({error})") from error
    assert made is not None
    made.model.metadata_props[KEY] = facts
    content = made.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(x: Named, present: Named) -> list[Tensor]:
        given = {**{m: t.numpy() for m, t in x.items()}, **{mask_name(m): t.numpy() for m, t in present.items()}}
        return [torch.from_numpy(np.asarray(value)) for value in session.run(list(graph.outputs), given)]

    return content, run


def _pt2(graph: Graph, program: ExportedProgram, facts: str) -> tuple[bytes, Run]:
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={f"{KEY}.json": facts})
        module = program.module()
    return file.getvalue(), lambda inputs, present: [module(inputs, present)[name] for name in graph.outputs]


@torch.no_grad()
def _compared(graph: Graph, run: Run, inputs: Named) -> None:
    """ValueError when what was made computes something else on batches of other sizes, some with absent samples."""
    for size in (1, 3):
        some = {m: torch.cat([x[:1]] * size) for m, x in inputs.items()}
        for lacking in (None, *graph.reads):
            present = {m: torch.ones(size, dtype=torch.bool) for m in graph.reads}
            if lacking is not None:
                present[lacking][0] = False
            wanted = graph(some, present)
            for (name, want), got in zip(wanted.items(), run(some, present), strict=True):
                worst = float((want - got).abs().max())
                if not worst <= TOLERANCE * max(1.0, float(want.abs().max())):
                    raise ValueError(
                        f"What was exported computes something else than the model: {name} is off by {worst:.2g} in a "
                        f"batch of {size}. Nothing was written. An encoder that branches on values or on the size of "
                        "the batch is recorded as it went for one example."
                    )
