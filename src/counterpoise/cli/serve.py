"""``counterpoise serve``."""

from __future__ import annotations

from collections.abc import Sequence

from counterpoise.recipe.messages import Options
from counterpoise.recipe.trained import TRUST, loaded
from counterpoise.trained.page import page


def main(arguments: Sequence[str]) -> int:
    """Show the page until Ctrl-C."""
    parser = Options(
        prog="counterpoise serve",
        description="A page that takes a file or a text per modality and shows the answer and each modality's vote.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; anything but the default lets others in"
    )
    parser.add_argument("--port", type=int, default=7860, help="of the address; 0 takes a free one")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments)
    shown = page(loaded(options.run, trust=options.trust), title=options.run)
    shown.launch(
        server_name=options.host,
        server_port=options.port or None,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size="200mb",
    )
    print(f"Serving {options.run} on {shown.local_url} (Ctrl-C ends it)", flush=True)
    shown.block_thread()
    return 0
