"""Accuracy under bf16-mixed next to float32 on the embedded digits: differences on equal seeds."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measure import publish, table

import counterpoise as cp
from counterpoise.benchmark.summary import mean_sd, paired_difference
from counterpoise.engine.state import mix, seed_everything
from counterpoise.method import Method

METHODS: dict[str, Callable[[], Method]] = {"Joint": cp.methods.Joint, "IGM": cp.methods.IGM}
DIM = 32
PRECISIONS = ("32-true", "bf16-mixed")


def scores(make: Callable[[], Method], precision: str, seed: int, epochs: int, data: cp.Splits) -> dict[str, float]:
    """Test scores of one run: small CNNs on spectrogram and image."""
    seed_everything(mix(seed, "model"))
    method = make()
    encoders = {"audio": cp.encoders.CNN(1, DIM), "image": cp.encoders.CNN(1, DIM)}
    model = cp.build_model(encoders, method.default_fusion, num_classes=10, example=data.train)
    trainer = cp.Trainer(
        model, method, epochs=epochs, batch_size=64, optimizer=cp.SGD(lr=0.05), seed=seed, precision=precision,
        accelerator="cpu", progress=False,
    )  # fmt: skip
    return trainer.run(data)["test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    own = parser.parse_args()
    data = cp.digits(size=1000)
    rows = []
    for name, make in METHODS.items():
        found: dict[str, list[dict[str, float]]] = {precision: [] for precision in PRECISIONS}
        for seed in range(own.seeds):
            for precision in PRECISIONS:
                found[precision].append(scores(make, precision, seed, own.epochs, data))
                print(name, f"seed {seed}", precision, found[precision][-1]["fused/accuracy"], flush=True)
        for series in ("fused", *data.modalities):
            wide, narrow = ({k: 100 * run[f"{series}/accuracy"] for k, run in enumerate(found[p])} for p in PRECISIONS)
            gap = paired_difference(narrow, wide)
            assert gap is not None
            interval = "" if gap.low is None else f" [{gap.low:+.2f}, {gap.high:+.2f}]"
            rows.append([name, series, _text(wide), _text(narrow), f"{gap.mean:+.2f}{interval}"])
    body = (
        f"Test accuracy (%) on the embedded digits ({len(data.train)} training samples, CNNs of width {DIM}, "
        f"{own.epochs} epochs, batch 64, SGD with learning rate 0.05, weights selected on validation), "
        f"mean ± standard deviation over {own.seeds} seeds, and the mean difference on equal seeds "
        "with its 95 % interval (Student's t).\n\n"
    )
    header = ["method", "prediction", "32-true", "bf16-mixed", "difference (points)"]
    publish("bf16", "Accuracy under bf16-mixed", body + table(header, rows))


def _text(values: dict[int, float]) -> str:
    mean, sd = mean_sd(values.values())
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
