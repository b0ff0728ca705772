"""Packages that not everyone needs, and the extra of ours that brings each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

EXTRAS = {
    "PIL": "media",
    "av": "media",
    "gradio": "serve",
    "huggingface_hub": "hub",
    "jinja2": "report",
    "lightning": "lightning",
    "markupsafe": "report",
    "matplotlib": "report",
    "mlflow": "mlflow",
    "narwhals": "media",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "tune",
    "peft": "lora",
    "pyarrow": "media",
    "ray": "ray",
    "scipy": "report",
    "sklearn": "sklearn",
    "soundfile": "media",
    "soxr": "media",
    "sqlalchemy": "tune",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "torchjd": "torchjd",
    "torchvision": "media",
    "trackio": "trackio",
    "transformers": "text",
    "wandb": "wandb",
}
"""Name that is imported -> extra."""


def require(purpose: str, *packages: str, instead: str = "") -> None:
    """Refuse to begin what cannot end without these packages.

    Args:
        purpose: what needs them; begins the message.
        packages: names that are imported, of ``EXTRAS``.
        instead: what to do without them; ends the message.

    Raises:
        ImportError: one of them is not installed; with the command that installs what is missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ImportError(_message(purpose, missing) + instead, name=missing[0])


@contextmanager
def named_when_missing(purpose: str) -> Iterator[None]:
    """Within it, an import that fails for want of an extra says so; ``purpose`` begins the message."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS or find_spec(package) is not None:
            raise
        raise ImportError(_message(purpose, [package]), name=package) from error


def _message(purpose: str, missing: list[str]) -> str:
    extras = ",".join(sorted({EXTRAS[package] for package in missing}))
    noun = "package" if len(missing) == 1 else "packages"
    return f"{purpose} needs the {noun} {', '.join(missing)}: pip install 'counterpoise[{extras}]'."
