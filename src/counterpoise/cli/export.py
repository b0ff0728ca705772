"""``counterpoise export``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import TRUST, loaded


def main(arguments: Sequence[str]) -> int:
    """Write the model of a run into one file."""
    parser = Options(
        prog="counterpoise export",
        description="The model of a run with its method's rule as one file, for batches of any size; see the guide.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("file", help="what to write; ends in .onnx or .pt2")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments)
    if os.path.lexists(options.file) and not options.force:
        raise UsageError(f"{options.file} exists. Pass --force to overwrite it.")
    model = loaded(options.run, trust=options.trust, accelerator="cpu")
    path = model.export(options.file, overwrite=options.force)
    print(f"Wrote {path}: {', '.join(model.modalities)} in, {model.task.kind} out.")
    return 0
