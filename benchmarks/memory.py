"""What training a tower of text beside a ResNet takes of memory and time, and what each way of taking less saves."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from measure import Anonymous, child, publish, spread, table
from torch import nn

import counterpoise as cp
from counterpoise.encoders import Checkpointed, Frozen, LoRA, ResNet18, Transformers

BATCH, STEPS, LENGTH = 32, 2, 64
BERT = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
"""Freed blocks go back at once, so that what is resident is what is alive."""

Wrap = Callable[[nn.Module], nn.Module]


def as_it_is(encoder: nn.Module) -> nn.Module:
    return encoder


def bf16(encoder: nn.Module) -> nn.Module:
    return Frozen(encoder, dtype="bfloat16")


def checkpointed_lora(encoder: nn.Module) -> nn.Module:
    return Checkpointed(LoRA(encoder))


class Case(NamedTuple):
    text: Wrap = as_it_is
    image: Wrap = as_it_is
    accumulate: int = 1


CASES = {
    "both train": Case(),
    "both in `Checkpointed`": Case(Checkpointed, Checkpointed),
    "`accumulate=4`": Case(accumulate=4),
    "both in `Checkpointed`, `accumulate=4`": Case(Checkpointed, Checkpointed, 4),
    "text in `LoRA`": Case(LoRA),
    "text in `Checkpointed(LoRA)`": Case(checkpointed_lora),
    "text in `Frozen`": Case(Frozen),
    'text in `Frozen`, `dtype="bfloat16"`': Case(bf16),
}


def measured(case: Case, bert: str) -> dict[str, float]:
    """MiB that a fit of a few steps adds to what is resident, processor seconds a step, MiB of a checkpoint."""
    generator = torch.Generator().manual_seed(0)
    n = BATCH * (STEPS + 1)
    inputs = {
        "text": torch.randint(1, 1000, (n, LENGTH), generator=generator),
        "image": torch.randn(n, 3, 96, 96, generator=generator),
    }
    data = cp.from_arrays(inputs, torch.arange(n) % 4, val=1 / (STEPS + 1))
    warm_up()
    clock = Clock()
    with Anonymous() as before:
        pass
    with tempfile.TemporaryDirectory() as folder, Anonymous() as during:
        torch.manual_seed(0)
        encoders = {"text": case.text(Transformers(bert, pad=0)), "image": case.image(ResNet18())}
        trainer = cp.Trainer(
            cp.build_model(encoders, num_classes=4), "OGM", epochs=1, batch_size=BATCH, optimizer=cp.SGD(lr=0.01),
            accumulate=case.accumulate, run_dir=Path(folder, "run"), accelerator="cpu", progress=False,
            observers=[clock],
        )  # fmt: skip
        trainer.fit(data.train, data.val)
        size = Path(folder, "run", "last.ckpt").stat().st_size / 2**20
    return {"peak": during.most - before.most, "step": min(clock.steps), "size": size}


def warm_up() -> None:
    """Have all libraries imported and used once."""
    import peft  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    data = cp.digits(size=100)
    with tempfile.TemporaryDirectory() as folder:
        model = cp.build_model(data)
        cp.Trainer(model, "OGM", epochs=1, batch_size=8, run_dir=folder, accelerator="cpu", progress=False).run(data)


class Clock(cp.Observer):
    """Processor seconds of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_batch_start(self, run: object, batch: object) -> None:
        self._started = time.process_time()

    def on_batch_end(self, run: object) -> None:
        self.steps.append(time.process_time() - self._started)


def page(found: Mapping[str, list[dict[str, float]]]) -> str:
    """The table, ratios within a round."""
    rows = []
    for name, rounds in found.items():
        pairs = list(zip(rounds, found["both train"], strict=True))
        peak, step = ([a[key] / b[key] for a, b in pairs] for key in ("peak", "step"))
        mib, size = (spread([r[key] for r in rounds], 0) for key in ("peak", "size"))
        rows.append((name, mib, spread(peak), spread(step), size.split(" ")[0]))
    first = next(iter(found.values()))
    return (
        f"OGM trains a text encoder of BERT's shape ({BERT['num_hidden_layers']} layers of {BERT['hidden_size']}, "
        f"{LENGTH} tokens) beside a ResNet-18 (3×96×96), batches of {BATCH}, SGD with momentum, float32, one thread. "
        "The peak is the most that a process of its own had above data and libraries: weights, gradients, optimizer "
        f"and activations together, in {STEPS} steps, validation and checkpoints included; the step is the fastest, "
        "in processor seconds; the checkpoint is `last.ckpt`. "
        f"{len(first)} rounds in turn, seed 0; ratios within a round. On a GPU nothing of this was measured. "
        "Where `Checkpointed` and `accumulate` together save no more than each, activations are no longer the most: "
        "the rest is weights, gradients, momentum and the copy of the best weights. Adapters save optimizer and "
        "checkpoint, not activations. The tower is small (20 MiB), so bfloat16 shows in the checkpoint and not in the "
        "peak, and this CPU multiplies more slowly in it.\n\n"
        + table(("what", "peak, MiB", "of both training", "step, of both training", "checkpoint, MiB"), rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--bert", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measured(CASES[options.case], options.bert)))
        return
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(vocab_size=1000, **BERT)).save_pretrained(folder)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
        for turn in range(options.rounds):
            for name in [*CASES][:: -1 if turn % 2 else 1]:
                found[name].append(child([__file__, "--case", name, "--bert", folder], **ALLOCATOR)[0])
    publish("memory", "Memory", page(found))


if __name__ == "__main__":
    main()
