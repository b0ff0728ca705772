"""The methods in Lightning's Trainer."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import Tensor

from counterpoise._checks import spelled
from counterpoise._extras import require
from counterpoise._names import made
from counterpoise.data.split import Split
from counterpoise.integrations.loop import Balance, refuse_own_loop
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.types import Output, Present

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""Two names of one library, whose classes are not the same."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def _library() -> Any:
    """The one of ``PACKAGES`` that is in use here, else the first that is installed."""
    there = [name for name in PACKAGES if find_spec(name.partition(".")[0]) is not None]
    if not there:
        require("LightningBalance", "lightning")
    return import_module(min(there, key=lambda name: name not in sys.modules))


class _Hooks:
    """What Lightning calls; ``LightningBalance`` is this and Lightning's ``Callback``."""

    @spelled
    def __init__(
        self,
        method: Method | str,
        *,
        epochs: int | None = None,
        sam: float = 0.0,
        loss: Loss | str | None = None,
        train: Split | None = None,
        val: Split | None = None,
        seed: int = 0,
    ):
        self._method: Method = made("method", method)
        refuse_own_loop(self._method)
        self._epochs = epochs
        self._options: dict[str, Any] = {"sam": sam, "loss": loss, "train": train, "val": val, "seed": seed}
        self._balance: Balance | None = None
        self._saved: dict[str, Any] | None = None

    @property
    def balance(self) -> Balance:
        """What trains, once the trainer has begun."""
        if self._balance is None:
            raise ValueError(
                "LightningBalance trains nothing yet: pass it to the trainer, callbacks=[...], and call loss(...) in "
                "training_step."
            )
        return self._balance

    def loss(self, inputs: dict[str, Tensor], target: Tensor, **options: Any) -> Tensor:
        """What ``training_step`` returns; as ``Balance.loss``."""
        return self.balance.loss(inputs, target, **options)

    def predict(self, inputs: dict[str, Tensor], present: Present = None) -> Output:
        """What the method predicts, as ``Balance.predict``."""
        return self.balance.predict(inputs, present)

    # -- hooks -----------------------------------------------------------------------------------
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        _check(trainer)
        epochs = trainer.max_epochs if self._epochs is None else self._epochs
        if epochs is None or epochs < 1:
            raise ValueError(
                f"The trainer has max_epochs={trainer.max_epochs}: pass LightningBalance(..., epochs=...)."
            )
        # how many batches there are is known once the loaders are made
        self._balance = Balance(self._method, _model_of(pl_module), epochs=epochs, batches=1, **self._options)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        batches = trainer.num_training_batches
        if batches == float("inf"):
            raise ValueError("The training loader has no length; limit_train_batches=... of the trainer gives it one.")
        if len(trainer.optimizers) != 1:
            raise ValueError(f"configure_optimizers must make one optimizer; it made {len(trainer.optimizers)}.")
        self.balance.begin(batches, trainer.optimizers[0], getattr(trainer.precision_plugin, "scaler", None))
        if self._saved is not None:
            self.balance.load_state_dict(self._saved)
            self._saved = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        for name, value in self.balance.logged.items():
            pl_module.log(f"train/{name}", value, sync_dist=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._balance is not None:
            self._balance.close()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._balance is None else self._balance.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None


def _check(trainer: Any) -> None:
    """ValueError for what would make another algorithm of a method."""
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"accumulate_grad_batches must be 1; got {trainer.accumulate_grad_batches}. A method's gradient of a part "
            "of the batch is another algorithm."
        )
    strategy = type(trainer.strategy).__name__
    if strategy not in ("SingleDeviceStrategy", "DDPStrategy"):
        raise ValueError(f"strategy must be one device or 'ddp'; got {strategy}: it does not hold whole gradients.")
    if trainer.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {trainer.precision!r}.")


def _model_of(module: Any) -> MultimodalModel:
    """The multimodal model in a LightningModule."""
    models = [part for part in module.modules() if isinstance(part, MultimodalModel)]
    if len(models) != 1:
        raise ValueError(
            f"{type(module).__name__} must hold one MultimodalModel, as self.model = counterpoise.build_model(...); it "
            f"holds {len(models)}."
        )
    return models[0]


def _made() -> type:
    """The class, over Lightning's own."""
    document = """Trains the multimodal model of a LightningModule by a method, in Lightning's Trainer.

    ``training_step`` returns ``callback.loss(inputs, target)``; its backward pass gives the method's gradient, that of
    the global batch under DDP. Clipping, optimizer and schedule are Lightning's. What the method notes is logged as
    ``train/<name>``. Checkpoints hold where it stands, so that a resumed run goes on exactly.

    Args:
        method: as in ``Balance``, and so are ``sam``, ``loss``, ``train``, ``val`` and ``seed``.
        epochs: that the run will have; None for the trainer's ``max_epochs``.

    Raises:
        ImportError: the extra ``lightning`` is not installed.
        OwnLoopError: when the method must own its loop.
        ValueError: when the trainer accumulates gradients, shards them, or rounds weights.
    """
    body = {"__doc__": document, "__module__": __name__, "__qualname__": "LightningBalance"}
    return type("LightningBalance", (_Hooks, _library().Callback), body)


if TYPE_CHECKING:
    from lightning.pytorch import Callback

    class LightningBalance(_Hooks, Callback):
        """The class that ``_made`` makes."""


def __getattr__(name: str) -> Any:
    """``LightningBalance``, made over Lightning's ``Callback`` on first use; pickle finds it here too."""
    if name != "LightningBalance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _made()
    return globals()[name]
