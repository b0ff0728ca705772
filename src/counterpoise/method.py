"""The contract: what a training method may decide, and nothing about how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from counterpoise._checks import Spelled
from counterpoise.task import MultiLabel, Regression, SingleLabel, Task
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class OwnRadiusError(ValueError):
    """A method takes sharpness-aware steps of its own, so it cannot be trained with a radius around it too."""


@dataclass(frozen=True)
class Info:
    """What the method table says of a method (``counterpoise methods``, ``docs/methods``).

    Attributes:
        family: baseline, alternating, gradient, objective, feed-forward, data or learning-rate.
        summary: one sentence: what it changes.
        paper: authors, title, venue and year.
        url: where to read the paper.
        forward: forward passes per batch, in units of one pass through all branches.
        backward: backward passes per batch, in the same unit.
        fusions: names of the fusions it supports, or "any".
        modalities: the number of modalities it accepts.
        state: what it keeps between batches, "none" if nothing.
    """

    family: str
    summary: str
    paper: str
    url: str
    forward: str = "1"
    backward: str = "1"
    fusions: str = "any"
    modalities: str = "M ≥ 2"
    state: str = "none"


class Method(Spelled, nn.Module):
    """A way of training a multimodal model; override the least you can.

    The engine runs, and a method fills in the names marked with an arrow::

        setup                                              <- allocate buffers; every start
        on_start                                           <- compute; once, not on resume
        for index in count():
            phase(index) -> Phase | None                   <- what trains, for how long
            for epoch in range(phase.epochs):
                on_epoch_start                             <-
                for batch in train:
                    step:                                  <- or any other update of your own
                        with step.ascent(objective):            # SAM, when it is switched on
                            output = forward(step)         <- what the model computes
                            step.backward(loss(output, step))   <- what to minimise
                                                           # .grad is now that of the global batch
                        modulate(output, step)             <- how to change the gradient
                        step.update()
                on_epoch_end(validation scores)            <-
        predict                                            <- used by every evaluation

    State that must survive a restart lives in buffers, as in any ``nn.Module``; ``setup``
    allocates it. Constructor arguments are kept as attributes of the same names. A method must
    not keep a reference to the model or to one of its modules: as an ``nn.Module`` it would
    register them as its own.

    Attributes:
        info: the row of the method table.
        own_heads: the method trains one head per modality beside the fused one; a model built
            for it gets them (``Concat(..., heads=True)``).
        default_fusion: the fusion used when the user names none.
        edits_by_scale: the method acts by scaling gradients, which Adam-type optimizers cancel;
            the engine warns.
        tasks: the tasks it is defined for; the engine refuses others.
        min_modalities: the fewest modalities that make sense; the engine refuses a model with fewer.
        whole_batch: why a batch cannot come in parts (``accumulate``); None where that is the same algorithm: ``step``
            is this class's; what ``forward`` and ``loss`` make of a sample depends on no other of the batch; and losses
            are ``step.criterion``, ``average`` and ``unimodal_loss`` of all samples or of ``step.present(modality)``.
            ``modulate`` then gets the whole batch and its output, detached.
    """

    info: ClassVar[Info]
    tasks: ClassVar[tuple[type[Task], ...]] = (SingleLabel, MultiLabel, Regression)
    min_modalities: ClassVar[int] = 2
    own_heads: ClassVar[bool] = False
    default_fusion: ClassVar[str] = "Concat"
    edits_by_scale: ClassVar[bool] = False
    whole_batch: ClassVar[str | None] = "it does not say that its loss is a mean over single samples (whole_batch)"

    @property
    def label(self) -> str:
        """The name in tables and legends."""
        return type(self).__name__

    def forward(self, step: Step) -> Output:
        """The forward pass; override it to mask, drop or reweight features."""
        return step.forward()

    def loss(self, output: Output, step: Step) -> Tensor:
        """The scalar to minimise, averaged over the batch."""
        return step.criterion(output.logits, step.batch.target)

    def modulate(self, output: Output, step: Step) -> None:
        """Edit ``.grad`` in place; it already holds the gradient of the global batch."""

    def objective(self, step: Step) -> Tensor:
        """The loss of one forward pass: what SAM climbs."""
        return self.loss(self(step), step)

    def step(self, step: Step) -> Tensor:
        """One batch. Returns the loss to report."""
        with step.ascent(self.objective):
            output = self(step)
            loss = self.loss(output, step)
            step.backward(loss)
        self.modulate(output, step)
        step.update()
        return loss.detach()

    def phase(self, index: int, run: Run) -> Phase | None:
        """Phase number ``index``, or None when training is over. Called once per boundary."""
        return Phase(run.epochs) if index == 0 else None

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        """How the parts become one prediction: (batch, classes) logits.

        Called with any subset of the modalities, and with one alone (``Output.alone``) for its own prediction.
        """
        return output.logits

    def decide(self, output: Output, model: MultimodalModel) -> Output:
        """``output`` with what is predicted as its logits, fused and of each modality, by the same rule."""
        unimodal = {m: self.predict(output.alone(m), model) for m in output.unimodal}
        return output._replace(logits=self.predict(output, model), unimodal=unimodal)

    def unimodal_by(self, model: MultimodalModel) -> str:
        """What the prediction of one modality is made by, in the words of tables."""
        return model.fusion.unimodal_by

    def length(self, run: Run) -> int:
        """Epochs that the run takes, for the time left; ``run.epochs`` unless phases make it more."""
        return run.epochs

    def selectable(self, run: Run) -> bool:
        """Whether the weights of the epoch that was just scored may be selected; asked before ``on_epoch_end``.

        By default once every modality that is read has had a stage (``State.staged``): before, heads that were never
        trained take part in the prediction.
        """
        return set(self.reads(run.model.modalities)) <= set(run.state.staged)

    def must_finish(self) -> str | None:
        """Why training must not end before its epochs are over (``early_stopping``); None where it may."""
        return None if type(self).phase is Method.phase else "it shares its epochs out among phases"

    def must_own_loop(self) -> str | None:
        """Why it cannot train in somebody else's loop (``counterpoise.integrations``); None where it can.

        There, one batch is one update, and the loop is of others: which samples an epoch has, how many epochs there
        are, and what trains in them.
        """
        return None if type(self).phase is Method.phase else "it shares its epochs out among phases"

    def reads(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """The modalities that evaluation reads; all of them unless the method ignores some for good."""
        return modalities

    def setup(self, run: Run) -> None:
        """Check what the method needs and allocate buffers. Runs on every start, resumed or not."""

    def on_start(self, run: Run) -> None:
        """Compute what the run needs, such as teachers. Runs once, and not on resume."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch."""

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        """After validation; ``scores`` has ``fused/accuracy``, ``audio/accuracy``, ``fused/loss``, ..."""
