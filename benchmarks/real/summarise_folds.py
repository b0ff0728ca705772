"""``results.json`` of a comparison over folds -> docs/benchmarks/<set>.md.

    python benchmarks/real/summarise_folds.py runs/real/ravdess_av --config benchmarks/real/ravdess_av.yaml
    python benchmarks/real/summarise_folds.py runs/real/ravdess_rows --config benchmarks/real/ravdess_av.yaml \\
        --page ravdess_rows

What stands between the two "reading" marks of an existing page is kept: it is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from summarise import BEGIN, END, line, write

from counterpoise.benchmark.folds import by_fold
from counterpoise.benchmark.summary import summarize
from counterpoise.report.figures import seeds_text

DATA = """RAVDESS speech (Livingstone and Russo, 2018; CC BY-NC-SA 4.0): 1440 clips of 24 actors, 8 emotions.

The sound is 2 s at 16 kHz as a spectrogram of 65 frequencies and 63 frames, for a small convolutional network from
scratch; the face is 35 action units of OpenFace, mean over the frames of a clip, as one `Tabular`."""
ABOUT = {
    "ravdess_av": ("actor", "Each fold leaves one actor out; whole actors among the others select the weights."),
    "ravdess_rows": (
        "fold",
        "Rows of the poster's table, each\nwith the method's own fusion on features of 128 numbers, over the five "
        "folds of Luna-Jiménez et al. (Applied\nSciences, 2022), no actor in two of them; whole actors of the other "
        "four select the weights.",
    ),
}
"""Page -> what a fold holds out, and a sentence about the folds."""


def page(name: str, out: Path, config: Path, reading: str) -> str:
    """The whole page."""
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    records, folds = content["runs"], content["folds"]["folds"]
    rows = list(content["folds"]["scores"])
    done = {n for n in range(len(folds)) if all(str(n) in content["folds"]["scores"][row] for row in rows)}
    records = [record for record in records if record["fold"] in done]
    columns = [f"fused/{metric}" for metric in ("accuracy", "macro_f1", "ece")]
    summary = summarize(by_fold(records), seeds=len(done), columns=columns, ratio=content["summary"]["ratio"])
    held, about = ABOUT[name]
    parts = [
        f"# {name}",
        f"{DATA} {about}",
        "## Reading",
        f"{BEGIN}\n{reading}\n{END}",
        "## Result",
        f"{len(done)} of {len(folds)} {held}s were left out, {seeds_text([len({r['seed'] for r in records})])}.",
        summary.to_markdown().strip(),
        f"## Each {held}",
        "\n".join(_folds(content, held, rows, done)),
        "## Commands",
        _commands(name, config),
    ]
    return "\n\n".join(parts) + "\n"


def _folds(content: dict, held: str, rows: list[str], done: set[int]) -> list[str]:
    lines = [line([held, "learned from", "tested on", *rows]), line(["---"] * (3 + len(rows)))]
    for fold in content["folds"]["folds"]:
        if fold["number"] in done:
            scores = [f"{100 * content['folds']['scores'][row][str(fold['number'])]:.1f}" for row in rows]
            lines.append(line([fold["held"], str(fold["learned"]), str(fold["tested"]), *scores]))
    return lines


def _commands(name: str, config: Path) -> str:
    options = config.read_text(encoding="utf-8").strip()
    return (
        f"```bash\nbenchmarks/real/{name}.sh DATA\n```\n\nwith `clips.csv` and the folder `audio` in `DATA`; it "
        f"goes on where it stopped. The options that all rows share (`benchmarks/real/{config.name}`):\n\n"
        f"```yaml\n{options}\n```"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder with results.json, named like the set")
    parser.add_argument("--config", type=Path, required=True, help="the options that all rows shared")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), help="folder of the page")
    parser.add_argument("--page", choices=ABOUT, default="ravdess_av", help="which one")
    given = parser.parse_args()
    name = given.page
    write(given.docs / f"{name}.md", lambda reading: page(name, given.out, given.config, reading))


if __name__ == "__main__":
    main()
