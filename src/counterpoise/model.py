"""A model of any number of modalities: who encodes, who fuses, who owns which parameter.

Shapes, in words, used throughout: ``batch`` samples, ``classes`` classes, ``dim`` the width of one
modality's feature.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean
from counterpoise.functional.statistics import lone_sample
from counterpoise.fusions import Fusion
from counterpoise.fusions.pool import ExpertPool
from counterpoise.task import Task
from counterpoise.types import FUSED, Output, Present


class MultimodalModel(nn.Module):
    """One encoder per modality and a fusion that gives fused and unimodal logits.

    Args:
        encoders: modality -> module mapping (batch, ...) to (batch, dim). The key order is the order
            of the modalities everywhere.
        fusion: a fusion built for the widths of these encoders. ``counterpoise.build_model`` finds
            the widths and builds it by name.
        task: what is predicted; None leaves it to the fusion: one of its ``num_classes`` classes.
        pool: predict by a pool of the fused and the unimodal predictions (``read_out``).

    Raises:
        ValueError: when the fusion was built for other modalities or another task, or has a pool and is to be pooled
            again.
    """

    def __init__(
        self, encoders: Mapping[str, nn.Module], fusion: Fusion, *, task: Task | None = None, pool: bool = False
    ):
        super().__init__()
        if not encoders:
            raise ValueError("encoders: a model needs at least one modality; got none.")
        if tuple(fusion.dims) != tuple(encoders):
            raise ValueError(
                f"fusion was built for modalities {tuple(fusion.dims)}, the encoders are {tuple(encoders)}. "
                "Build it from the same mapping, or use counterpoise.build_model(encoders, 'Concat', ...)."
            )
        if pool and any(isinstance(module, ExpertPool) for module in fusion.modules()):
            raise ValueError(
                f"pool=True pools the fused and the unimodal predictions, and fusion {type(fusion).__name__} is a pool "
                "of the latter already. Leave pool out, or build the fusion with another rule."
            )
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        if task is not None:
            fusion.predict(task)
        self.pool = ExpertPool((FUSED, *fusion.dims), self.task, first=FUSED) if pool else None

    def extra_repr(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        frozen = "" if trained == count else f", of which {count - trained:,} are frozen"
        return f"{', '.join(self.modalities)} -> {self.task!r}; {count:,} parameters{frozen}"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.encoders)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.fusion.task

    @property
    def num_classes(self) -> int:
        """Number of classes, labels or numbers that are predicted."""
        return self.fusion.num_classes

    def select(self, only: Collection[str] | None) -> tuple[str, ...]:
        """The modalities named in ``only``, in model order; all of them for None."""
        if only is None:
            return self.modalities
        if isinstance(only, str):
            raise ValueError(f"Modalities come as a tuple: ({only!r},); got the text {only!r}.")
        for name in only:
            if name not in self.encoders:
                raise ValueError(did_you_mean("modality", name, self.modalities))
        return tuple(m for m in self.modalities if m in only)

    def encode(
        self,
        inputs: Mapping[str, Tensor],
        only: Collection[str] | None = None,
        present: Present = None,
    ) -> dict[str, Tensor]:
        """Features (batch, dim) of each modality; absent samples are not run and give zero rows."""
        features, dims = {}, self.fusion.dims
        for m in self.select(only):
            x, mask = inputs[m], None if present is None else present.get(m)
            if mask is None:
                features[m] = self._encode(m, x, dims[m])
                continue
            rows = mask.nonzero().flatten()
            if len(rows) == len(x):
                features[m] = self._encode(m, x, dims[m])
            elif len(rows) == 0:
                dtype = next((p.dtype for p in self.fusion.parameters()), None)
                features[m] = torch.zeros(len(x), dims[m], device=x.device, dtype=dtype)
            else:
                z = self._encode(m, x[rows], dims[m])
                features[m] = z.new_zeros(len(x), z.shape[1]).index_copy(0, rows, z)
        return features

    def _encode(self, modality: str, x: Tensor, dim: int) -> Tensor:
        encoder = self.encoders[modality]
        try:
            with lone_sample(encoder) if x.shape[0] == 1 and encoder.training else nullcontext():
                z = encoder(x)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            whole = (
                "" if x.is_floating_point() else f" ({x.dtype}; for other numbers than tokens pass x.astype('float32'))"
            )
            raise ValueError(
                f"encoders[{modality!r}] ({type(encoder).__name__}) fails on samples of shape {tuple(x.shape[1:])}"
                f"{whole}: {error}"
            ) from error
        if not isinstance(z, Tensor) or z.shape != (x.shape[0], dim):
            given = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"encoders[{modality!r}] must give features of shape (batch, dim) = {(len(x), dim)}; got {given}."
            )
        return z

    def fuse(self, features: Mapping[str, Tensor], present: Present = None, *, unimodal: bool = True) -> Output:
        """Fused and unimodal logits of any non-empty subset of the modalities, or the fused ones alone."""
        logits, each = self.fusion(features, present, unimodal)
        return Output(logits, each, dict(features), present)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        only: Collection[str] | None = None,
        present: Present = None,
    ) -> Output:
        """``fuse(encode(inputs))``."""
        return self.fuse(self.encode(inputs, only, present), present)

    def read_out(self, output: Output) -> Tensor:
        """The prediction as logits (batch, classes) or numbers: the fused one, or with ``pool=True`` the pool.

        Training does not use it. Until ``calibrate`` has fitted the pool, it is the fused prediction.

        Args:
            output: with what the method predicts as its logits.
        """
        if self.pool is None:
            return output.logits
        return self.pool({FUSED: output.logits, **output.unimodal}, output.present)

    def calibrate(self, output: Output, target: Tensor) -> bool:
        """Fit what fusion and model fit on validation, and say whether there was anything.

        Args:
            output: of the samples, with what the method predicts as its logits.
            target: of the samples, as the task has it.
        """
        fitted = self.fusion.calibrate(output.unimodal, target, output.present)
        if self.pool is not None:
            self.pool.fit({FUSED: output.logits, **output.unimodal}, target, output.present)
        return fitted or self.pool is not None

    def uncalibrate(self) -> None:
        """Undo the fit of every pool, as before training: nothing trains or is selected on a pool of other weights."""
        for module in self.modules():
            if isinstance(module, ExpertPool):
                module.reset()

    def head_of(self, modality: str) -> nn.Module:
        """The module that turns this modality's feature into its logits: its own, or the shared one.

        Raises:
            ValueError: when the fusion reads no per-modality head off (gated, FiLM, attention).
        """
        return self.fusion.head_of(modality)

    def modules_of(self, modality: str) -> list[nn.Module]:
        """What only this modality uses: its encoder and its own part of the fusion."""
        return [self.encoders[modality], *self.fusion.modules_of(modality)]

    def branch_of(self, modality: str) -> list[nn.Module]:
        """What predicts from this modality alone: its encoder and its head.

        Beside heads of their own (``heads=True``) the rest of what a fusion has of one modality, such as its block of
        a concatenation, serves the fused prediction and is not part of the branch.
        """
        heads = self.fusion.own_heads
        return [self.encoders[modality], heads[modality]] if modality in heads else self.modules_of(modality)

    def parameters_of(self, modality: str) -> list[nn.Parameter]:
        """Parameters that only this modality uses, encoder first."""
        return [p for module in self.modules_of(modality) for p in module.parameters()]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that no single modality owns."""
        own = {id(p) for m in self.modalities for p in self.parameters_of(m)}
        return [p for p in self.parameters() if id(p) not in own]
