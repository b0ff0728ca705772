"""Encoders through ``torch.compile``, when asked to."""

from __future__ import annotations

import torch

from counterpoise.encoders import Checkpointed
from counterpoise.model import MultimodalModel

VARIANTS = 8  # of one encoder: training, evaluation and perturbed weights, each at a full and at a last batch


def compile_encoders(model: MultimodalModel, device: torch.device) -> None:
    """Compile each encoder in place; names of parameters, and so checkpoints, stay as they are.

    Raises:
        ValueError: for an encoder in ``Checkpointed``; when nothing can be compiled on this machine, with the
            compiler's reason.
    """
    for m, encoder in model.encoders.items():
        if any(isinstance(module, Checkpointed) for module in encoder.modules()):
            raise ValueError(
                f"compile=True: the encoder of {m!r} is in Checkpointed, and the compiler decides itself what is "
                "computed twice. Leave compile or Checkpointed out."
            )
    try:
        torch.compile(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # each of Dynamo's backends has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"compile=True: torch.compile does not work here ({reason}). It needs a C++ compiler for the CPU (g++, or "
            "what the environment variable CXX names) and Triton for a GPU. Install one, or leave compile out."
        ) from error
    import torch._dynamo as dynamo

    # all modules share one entry point, and past the limit a variant runs uncompiled
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, VARIANTS * len(model.encoders))
    for encoder in model.encoders.values():
        encoder.compile()
