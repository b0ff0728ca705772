"""IGM: modalities train in turn, and each moves where the one before is flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number, whole
from counterpoise.functional import assign, collect_inputs, flat_directions, input_shape, project_inputs
from counterpoise.functional.spectrum import STATISTICS
from counterpoise.fusions import Late, Shared
from counterpoise.method import Info, Method, OwnRadiusError
from counterpoise.methods._layers import branch, branch_layers, check_scope, layers_in_scope, paired
from counterpoise.methods._mixup import Mix, draw_mix, mixed_loss
from counterpoise.methods._turns import at_least_zero, named_modalities, of, predecessors, stage_epochs, turns
from counterpoise.types import Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


SAM = ("paper", "released", "off")


class IGM(Method):
    r"""Interactive multimodal learning via flat gradient modification.

    Training goes in stages; each trains the branch (encoder and head) of one modality j, the others stand
    still. A stage minimises j's own cross-entropy by sharpness-aware steps,

    .. math:: G = \nabla L_j\Bigl(\theta_j + \rho\,\frac{g}{\lVert g \rVert_2}\Bigr), \qquad g = \nabla L_j(\theta_j),

    and from the second stage on multiplies the gradient of every weight in scope on its input side,

    .. math:: G_W \leftarrow G_W T^{(k)}, \qquad
        T^{(k)} = V \operatorname{diag}(s)\, V^\top, \qquad
        s_i = e^{-\tau\,(\lambda_i - \lambda_{min}) / (\lambda_{max} - \lambda_{min})}, \qquad
        \sum_t \bar a_t \bar a_t^\top = V \operatorname{diag}(\lambda) V^\top,

    with k the modality of the stage before and :math:`\bar a_t` the mean of what enters the same layer of
    k's branch in batch t of one pass over the training data.

    Args:
        tau: how strongly the directions k uses shrink, at least 0; 0 leaves gradients alone.
        rho: radius of the sharpness-aware step, at least 0; one number or {modality: number}.
        stages: epochs of each stage, going round ``order``. None: two rounds in which every modality
            gets the run's ``epochs`` in all, the passes over its data that joint training makes.
        order: the modalities in training order; None for the model's.
        scope: the layers whose gradient is modified. "head"; names such as ["head.0", "encoder.layer4.1.conv2"];
            or a share in [0, 1] of the branch's parameters, from the output backwards (the number of layers
            whose share comes nearest). Layers pair across modalities by name, in heads by position from
            the output, when their input sides agree; others keep their gradient.
        statistic: "batch_mean" as above, or "sample": every input instead of the batch means.
        directions: which modality may act on which, as ["audio->video", ...]; None for all.
        gm: False switches gradient modification off (plain alternation with sharpness-aware steps).
        sam: "paper"; "off"; or "released" for the rule of the authors' code: the perturbation has a norm per
            tensor and is not undone, the head alone is evaluated at the perturbed point, on unmixed labels.
        flat_ratio: with sam="released", the share of the perturbed loss, in [0, 1].
        mixup: parameter of the Beta distribution, at least 0, 0 for off; one number or {modality: number}.
            Inputs that are whole numbers (tokens) are never mixed.
        reload_best: start every stage from the best weights on validation so far.

    Attributes:
        matrices: the T in use, one buffer per modality acted on and layer.

    Source: Jiang, Chi, Yang, Interactive Multimodal Learning via Flat Gradient Modification, IJCAI 2025,
    https://doi.org/10.24963/ijcai.2025/611
    """

    info = Info(
        family="alternating",
        summary="Trains modalities in stages by SAM; gradients avoid the directions the modality before relies on.",
        paper="Jiang et al., Interactive Multimodal Learning via Flat Gradient Modification, IJCAI 2025",
        url="https://doi.org/10.24963/ijcai.2025/611",
        forward="2/M, and one pass over the data per stage",
        backward="2/M",
        fusions="Late, Shared",
        state="one matrix per layer in scope",
    )
    whole_batch = "it takes sharpness-aware steps of its own"
    default_fusion = "Late"

    def __init__(
        self,
        tau: float = 0.4,
        rho: float | Mapping[str, float] = 0.05,
        *,
        stages: Sequence[int] | None = None,
        order: Sequence[str] | None = None,
        scope: float | Sequence[str] | str = "head",
        statistic: str = "batch_mean",
        directions: Sequence[str] | None = None,
        gm: bool = True,
        sam: str = "paper",
        flat_ratio: float = 0.3,
        mixup: float | Mapping[str, float] = 0.0,
        reload_best: bool = False,
    ):
        super().__init__()
        self.tau, self.flat_ratio = number("tau", tau, low=0), number("flat_ratio", flat_ratio, low=0, high=1)
        self.rho, self.mixup = at_least_zero("rho", rho), at_least_zero("mixup", mixup)
        self.stages, self.order, self.scope, self.directions = stages, order, scope, directions
        self.statistic, self.sam = choice("statistic", statistic, STATISTICS), choice("sam", sam, SAM)
        self.gm, self.reload_best = gm, reload_best
        for epochs in stages or ():
            whole("stages", epochs, low=1)
        self.matrices = nn.Module()
        self._layers: dict[str, dict[str, str]] = {}

    @classmethod
    def paper(cls, stages: Sequence[int] | None = None, rho: float | Mapping[str, float] = 1e-10) -> IGM:
        """The settings the paper prints. Its radius is below the resolution of float32: SAM does nothing.

        Args:
            stages: epochs of each stage (the method's card lists them per data set).
            rho: 1e-10 for audio, 1e-15 for images and text in the paper.
        """
        return cls(rho=rho, stages=stages)

    @classmethod
    def released(
        cls,
        stages: Sequence[int] | None = None,
        rho: float | Mapping[str, float] = 1e-10,
        mixup: float | Mapping[str, float] = 1.0,
    ) -> IGM:
        """What the authors' code does: its own form of SAM, mixup, every stage from the best weights.

        Args:
            stages: epochs of each stage (the method's card lists them per data set).
            rho: 1e-10 for audio and video, 1e-15 for images, text and gestures in the code.
            mixup: 1.0 in the code, 0.9 for the images of Twitter2015.
        """
        return cls(rho=rho, stages=stages, sam="released", mixup=mixup, reload_best=True)

    def length(self, run: Run) -> int:
        return sum(stage_epochs(self.stages, run.epochs, len(run.model.modalities)))

    def coverage(self, model: MultimodalModel) -> dict[str, dict[str, Any]]:
        """What ``scope`` comes to in each modality's branch of a model.

        Returns:
            Modality -> ``"in_scope"`` and ``"modified"``, shares in [0, 1] of the branch's parameters: those of the
            layers that ``scope`` means, and of their weights those that another modality's matrix acts on; and
            ``"layers"``, the names of the latter.
        """
        acting = predecessors(turns(self.order, model.modalities), self.directions) if self.gm else []
        pairs = {target: paired(model, source, target, self.scope) for source, target in acting}
        covered = {}
        for m in model.modalities:
            layers = branch_layers(model, m)
            total = sum(p.numel() for p in branch(model, m).parameters())
            chosen = layers_in_scope(model, m, self.scope) if self.gm else []
            modified = [name for name in layers if name in pairs.get(m, {})]
            covered[m] = {
                "in_scope": sum(p.numel() for name in chosen for p in layers[name].parameters()) / total,
                "modified": sum(layers[name].weight.numel() for name in modified) / total,
                "layers": modified,
            }
        return covered

    # -- stages ----------------------------------------------------------------------------------
    def setup(self, run: Run) -> None:
        model, order = run.model, turns(self.order, run.model.modalities)
        own = isinstance(model.fusion, Late) or (isinstance(model.fusion, Shared) and not model.fusion.has_own_heads)
        if not own:
            raise ValueError(
                f"IGM trains each modality through its own prediction; this model has fusion="
                f"{type(model.fusion).__name__}. Use fusion=Late (own heads) or Shared (one head, heads=False)."
            )
        if run.sam:
            raise OwnRadiusError(
                f"sam={run.sam:g}: IGM has a radius of its own. Pass sam=0 and IGM(rho=...), on the command line "
                "--sam 0 --method.rho RADIUS."
            )
        named_modalities("rho", self.rho, order, everyone=True)
        named_modalities("mixup", self.mixup, order)
        stage_epochs(self.stages, run.epochs, len(order))
        check_scope(model, self.scope)
        acting = predecessors(order, self.directions) if self.gm else []
        self._layers = {target: paired(model, source, target, self.scope) for source, target in acting}
        self.matrices = nn.Module()
        for target, pairs in self._layers.items():
            for name in pairs:
                layer = branch_layers(model, target)[name]
                identity = torch.eye(input_shape(layer)[-1]).expand(input_shape(layer)).contiguous()
                self.matrices.register_buffer(_key(target, name), identity.to(layer.weight))

    def must_finish(self) -> str | None:
        return "it trains one modality after another, and the last stages would be missing"

    def phase(self, index: int, run: Run) -> Phase | None:
        order = turns(self.order, run.model.modalities)
        epochs = stage_epochs(self.stages, run.epochs, len(order))
        if index == len(epochs):
            return None
        now, before = (order[i % len(order)] for i in (index, index - 1))
        if index > 0:
            if self.reload_best:
                run.load_best()
            self._measure(run, before, now)
        return Phase(epochs[index], train=(now,), fresh_optimizer=True, name=f"{now} {index // len(order) + 1}")

    def _measure(self, run: Run, source: str, target: str) -> None:
        """T of the stage before, from one pass over the training samples that have that modality."""
        pairs, layers = self._layers.get(target, {}), branch_layers(run.model, source)
        if not pairs:
            return
        split, present = run.train_split, (run.train_split.present or {}).get(source)
        if present is not None:
            split = split.subset(present.nonzero().flatten())
        whole = len(split) >= run.batch_size  # otherwise one small batch, the same on every replica
        with collect_inputs({n: layers[n] for n in pairs.values()}, self.statistic, mean=run.mean) as moments:
            for _ in run.outputs(split, (source,), shuffle=True, drop_last=whole, shard=whole):
                pass
        for name, other in pairs.items():
            if self.statistic == "batch_mean":  # of the global batch: the same on every replica
                T = moments.flat_directions(other, self.tau)
            else:
                T = flat_directions(run.mean(moments[other]), self.tau)
            self.matrices.get_buffer(_key(target, name)).copy_(T)

    # -- one batch -------------------------------------------------------------------------------
    def step(self, step: Step) -> Tensor:
        assert step.phase.train is not None
        (m,) = step.phase.train
        mix = draw_mix(step.batch.inputs[m], of(self.mixup, m), step.generator)
        if self.sam == "released":
            loss = self._released(step, m, mix)
        else:
            with step.ascent(lambda step: _loss(step, m, mix), of(self.rho, m) if self.sam == "paper" else 0.0):
                loss = _loss(step, m, mix)
                step.backward(loss)
        if step.phase_index > 0:
            layers = branch_layers(step.model, m)
            for name in self._layers.get(m, {}):
                weight = layers[name].weight
                if weight.grad is not None:
                    weight.grad = project_inputs(weight.grad, self.matrices.get_buffer(_key(m, name)))
        step.update()
        return loss.detach()

    def _released(self, step: Step, m: str, mix: Mix | None) -> Tensor:
        parts = branch(step.model, m)
        head, encoder = ([p for p in parts[part].parameters() if p.requires_grad] for part in ("head", "encoder"))
        features = _encode(step, m, mix)
        loss = mixed_loss(step, step.fuse(features).unimodal[m], m, mix)
        g = step.grad(loss, [*head, *encoder])
        rho = of(self.rho, m)
        _climb(head, g[: len(head)], rho)
        perturbed = mixed_loss(step, step.fuse(features).unimodal[m], m, None)
        flat = step.grad(perturbed, [*head, *encoder], retain=False)
        _climb(encoder, g[len(head) :], rho)  # too late for this batch's forward pass, as in the code
        f = self.flat_ratio
        assign([*head, *encoder], [(1 - f) * a + f * b for a, b in zip(g, flat, strict=True)])
        return (1 - f) * loss.detach() + f * perturbed.detach()


def _encode(step: Step, m: str, mix: Mix | None) -> dict[str, Tensor]:
    return step.encode((m,), None if mix is None else {m: mix.inputs(step.batch.inputs[m])})


def _loss(step: Step, m: str, mix: Mix | None) -> Tensor:
    return mixed_loss(step, step.fuse(_encode(step, m, mix)).unimodal[m], m, mix)


@torch.no_grad()
def _climb(params: Sequence[Tensor], grads: Sequence[Tensor], rho: float) -> None:
    """Move each tensor by ``rho`` along its own gradient, for good."""
    for p, g in zip(params, grads, strict=True):
        norm = g.norm()
        p += torch.where(norm > 0, rho / norm, 0.0) * g


def _key(target: str, layer: str) -> str:
    return f"{target}:{layer}".replace(".", "/")  # buffer names have no dots
