"""The methods in the Trainer of Hugging Face's Transformers."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from counterpoise._extras import require
from counterpoise.integrations.loop import Balance
from counterpoise.method import Method
from counterpoise.model import MultimodalModel


class BalancedModel(nn.Module):
    """A multimodal model as Transformers' ``Trainer`` takes one: given labels it returns a loss, the method's.

    In training the backward pass of that loss gives the method's gradient, that of the global batch under DDP; in
    evaluation the loss is the mean loss of what the method predicts. A sample is a dict: a tensor per modality, all of
    them, ``labels``, and if there is one its number in the data, ``index``. ``remove_unused_columns=False`` keeps them,
    and ``TransformersBalance()`` must be among the callbacks. ``model.safetensors`` of a checkpoint holds where the
    method stands, so that a resumed run goes on exactly.

    Args:
        method: as in ``Balance``, and so are the options ``sam``, ``loss``, ``train``, ``val`` and ``seed``.
        model: what is trained.

    Raises:
        OwnLoopError: when the method must own its loop.
        ValueError: when method, model and options do not fit together.
    """

    accepts_loss_kwargs = False  # else the Trainer multiplies and divides the loss by counts of tokens

    def __init__(self, method: Method | str, model: MultimodalModel, **options: Any):
        super().__init__()
        balance = Balance(method, model, epochs=1, batches=1, **options)  # the callback says how many there are
        self.model, self.method = model, balance.method
        self.balance, self.begun = balance, False

    def forward(self, labels: Tensor | None = None, index: Tensor | None = None, **inputs: Tensor) -> dict[str, Tensor]:
        """``logits``, and ``loss`` where there are labels."""
        if self.training and torch.is_grad_enabled():
            if not self.begun or labels is None:
                need = "samples with 'labels'" if self.begun else "callbacks=[TransformersBalance()]"
                raise ValueError(f"A BalancedModel trains in transformers.Trainer, which needs {need}.")
            loss = self.balance.loss(inputs, labels, index=index)
            return {"loss": loss, "logits": loss.new_zeros(len(labels), 0)}
        logits = self.balance.predict(inputs).logits
        if labels is None:
            return {"logits": logits}
        return {"loss": self.balance.mean_loss(logits, labels), "logits": logits}

    def get_extra_state(self) -> Tensor:
        """Where the method stands, as bytes: a file of tensors holds nothing else."""
        state = self.balance.state_dict()
        buffer = io.BytesIO()
        torch.save({name: value for name, value in state.items() if name != "method"}, buffer)
        return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Counterpart of ``get_extra_state``."""
        saved = torch.load(io.BytesIO(state.cpu().numpy().tobytes()), weights_only=True)
        self.balance.load_state_dict({**saved, "method": self.method.state_dict()})  # its buffers are loaded as such


class _Hooks:
    """What Transformers calls; ``TransformersBalance`` is this and its ``TrainerCallback``."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **parts: Any) -> None:
        module = getattr(model, "module", model)
        if not isinstance(module, BalancedModel):
            raise ValueError(f"TransformersBalance trains a BalancedModel; the trainer has a {type(module).__name__}.")
        _check(args)
        optimizer, batches = parts["optimizer"], len(parts["train_dataloader"])
        module.balance.begin(batches, getattr(optimizer, "optimizer", optimizer), epochs=int(state.num_train_epochs))
        module.begun = True

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **parts: Any) -> None:
        getattr(model, "module", model).balance.close()


def _check(args: Any) -> None:
    """ValueError for what would make another algorithm of a method."""
    if args.gradient_accumulation_steps != 1:
        raise ValueError(
            f"gradient_accumulation_steps must be 1; got {args.gradient_accumulation_steps}. A method's gradient of a "
            "part of the batch is another algorithm."
        )
    if args.fp16:
        raise ValueError("fp16=True scales the loss out of the method's sight; pass bf16=True instead.")
    if args.n_gpu > 1:
        raise ValueError("Several GPUs in one process share no gradients to see; start a process for each (torchrun).")


def _made() -> type:
    """The class, over Transformers' own."""
    require("TransformersBalance", "transformers")
    document = """Tells a ``BalancedModel`` how long the training is, and of its optimizer.

    Raises:
        ImportError: Transformers is not installed.
        ValueError: when training begins, for another model, accumulated gradients or fp16.
    """
    body = {"__doc__": document, "__module__": __name__, "__qualname__": "TransformersBalance"}
    return type("TransformersBalance", (_Hooks, import_module("transformers").TrainerCallback), body)


if TYPE_CHECKING:
    from transformers import TrainerCallback

    class TransformersBalance(_Hooks, TrainerCallback):
        """The class that ``_made`` makes."""


def __getattr__(name: str) -> Any:
    """``TransformersBalance``, made over Transformers' class on first use; pickle finds it here too."""
    if name != "TransformersBalance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _made()
    return globals()[name]
