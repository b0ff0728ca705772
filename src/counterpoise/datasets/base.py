"""From the raw downloads of a published data set to a table that the library reads like any other."""

from __future__ import annotations

import json
import os
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from counterpoise._checks import choice, settings, whole
from counterpoise.data import Reader, ReadError, Table
from counterpoise.data.labels import PARTS

from . import checks, files, recipes
from .checks import Check

MANIFEST, EXCLUDED, CARD, STATE, CONFIG = "manifest.csv", "excluded.csv", "card.md", "prepared.json", "data.yaml"


class Excluded(Exception):  # noqa: N818
    """A sample that cannot be used; the reason is ``kind: detail`` in one line, and is counted by kind."""


@dataclass(frozen=True)
class Row:
    """One sample of a published list.

    Attributes:
        id: name of the sample.
        label: name of the class.
        part: "train", "val" or "test".
        group: who or what it was recorded from, where samples of one source must not be mistaken for
            independent ones; "" when unknown.
        facts: what else the list says, for `Dataset.convert`.
    """

    id: str
    label: str
    part: str
    group: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What `Dataset.prepare` made.

    Attributes:
        out: the folder.
        manifest: table of the samples, for `counterpoise.data.Table`.
        card: what they are and where they come from, as Markdown.
        config: options for ``counterpoise fit --config``: table, readers and encoders.
        recipes: further ones, with which publications train on it; see `Dataset.recipes`.
        counts: part -> number of samples.
        excluded: kind of reason -> number of samples left out; each is listed in ``excluded.csv``.
        checks: what `Dataset.verify` found.
    """

    out: Path
    manifest: Path
    card: Path
    config: Path
    recipes: tuple[Path, ...]
    counts: dict[str, int]
    excluded: dict[str, int]
    checks: list[Check]

    def __str__(self) -> str:
        off = sum(not c.ok for c in self.checks)
        lines = [f"{self.manifest}: " + ", ".join(f"{n} {part}" for part, n in self.counts.items())]
        lines += [f"  left out: {n} x {kind}" for kind, n in self.excluded.items()]
        lines += [f"  every one is listed in {self.out / EXCLUDED}"] if self.excluded else []
        lines += [f"  {off} of {len(self.checks)} checks are off, see {self.card}"] if off else []
        lines += [f"Train with: counterpoise fit --config {self.config} --method IGM"]
        if self.recipes:
            lines += [f"Or as published: counterpoise fit --config {self.out / 'RECIPE.yaml'}, RECIPE one of"]
            lines += [f"  {', '.join(recipe.stem for recipe in self.recipes)}"]
        return "\n".join(lines)


class Dataset(ABC):
    """A published data set: its lists, its raw files, and the numbers that it should have.

    A subclass states the attributes below and writes `scan`, `rows`, `convert`, `published`, `readers`
    and `encoders`; the rest is the same for all. One folder holds one split at a time: preparing
    another one there replaces the tables and converts only what is not converted yet.

    Attributes:
        name: by which `get` knows it.
        title: in full.
        source: where the raw files are.
        licence: of the raw files.
        citation: of the paper.
        modalities: columns of the manifest, in order.
        classes: names, in the order of the published class numbers.
        splits: name -> what it is; the first is the default.
        measures: further numeric columns that `convert` fills.
        lists: name of a list -> its SHA-256 (`files.sha256`).
        shared_groups: split -> how many groups its test shares with the rest; empty when there are no groups.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]]
    splits: ClassVar[dict[str, str]]
    measures: ClassVar[tuple[str, ...]] = ()
    lists: ClassVar[dict[str, str]] = {}
    shared_groups: ClassVar[dict[str, int]] = {}

    # -- what differs from set to set ------------------------------------------------------------------
    @abstractmethod
    def scan(self, root: Path) -> Any:
        """Find the raw files.

        Raises:
            FileNotFoundError: `lacking`, when a folder or file that no preparation can do without is not there.
        """

    @abstractmethod
    def rows(self, raw: Any, split: str) -> list[Row]:
        """Every sample of the published list, in its order, whether its files are there or not."""

    @abstractmethod
    def convert(self, raw: Any, row: Row, out: Path) -> dict[str, str]:
        """Write the files of one sample and return its cells: every modality and measure.

        Called in a thread. Files are written through `files.replacing` or `files.place`, and kept when
        they are there already. Paths are relative to ``out``.

        Raises:
            Excluded: the sample cannot be used.
        """

    @abstractmethod
    def published(self, split: str) -> dict[str, dict[str, int]]:
        """Part, or "train+val" for both together -> class -> number of samples in the publication."""

    @abstractmethod
    def readers(self) -> dict[str, Reader]:
        """Modality -> the published preprocessing."""

    @abstractmethod
    def encoders(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Modality -> name in ``counterpoise.encoders.ENCODERS`` and its arguments, as published."""

    def checksums(self, raw: Any) -> dict[str, str]:
        """List -> the checksum it has; of the packaged lists unless a subclass reads the user's own."""
        return {name: files.sha256(files.fact_bytes(name)) for name in self.lists}

    def notes(self, raw: Any, split: str) -> list[str]:
        """Lines for the card about what was found."""
        return []

    def further(self, out: Path, samples: Sequence[Mapping[str, str]]) -> Iterable[Check]:
        """Checks of this set alone: durations, frame counts."""
        return ()

    # -- what is the same for all ----------------------------------------------------------------------
    @property
    def default_split(self) -> str:
        """Name of the split that is taken when none is named."""
        return next(iter(self.splits))

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the configurations that `prepare` writes beside ``data.yaml``, as ``igm-paper.yaml``."""
        return recipes.names(self.name)

    def lacking(self, what: Path | str, hint: str = "") -> FileNotFoundError:
        """The error for raw files that are not there: what is missing, and where it comes from."""
        return FileNotFoundError(
            f"{self.name}: there is no {what}.{' ' + hint if hint else ''}\nGet it from {self.source}"
        )

    def table(self, out: str | Path, **options: Any) -> Table:
        """The prepared table with the published preprocessing; ``options`` are those of `Table`."""
        return Table(Path(out) / MANIFEST, **{"modalities": self.readers(), "classes": self.classes, **options})

    def prepare(
        self, root: str | Path, out: str | Path, *, split: str | None = None, workers: int = 0, progress: bool = True
    ) -> Prepared:
        """Convert the raw files and write the manifest, the excluded samples and a data card.

        An interrupted preparation is continued by calling it again: what is converted stays.

        Args:
            root: folder of the raw files.
            out: folder to write to; made when it is not there.
            split: one of ``splits``; the default one when None.
            workers: threads; as many as there are cores (8 at most) when 0.
            progress: show a bar.

        Raises:
            FileNotFoundError: the raw files are not there, or none of the samples is.
            ValueError: unknown split, or ``out`` inside ``root``.
        """
        split = choice("split", split or self.default_split, self.splits)
        workers = whole("workers", workers, low=0) or min(8, os.cpu_count() or 1)
        root, out = Path(root).expanduser(), Path(out).expanduser()
        if not root.is_dir():
            raise self.lacking(f"folder {root}")
        if out.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"out must not be inside the raw folder {root}; got {out}.")
        raw = self.scan(root)
        rows = self.rows(raw, split)
        out.mkdir(parents=True, exist_ok=True)
        cells = self._converted(raw, rows, out, workers, progress)
        kept = [(row, cell) for row, cell in zip(rows, cells, strict=True) if not isinstance(cell, str)]
        gone = [(row, cell) for row, cell in zip(rows, cells, strict=True) if isinstance(cell, str)]
        excluded = Counter(reason.partition(":")[0] for _, reason in gone)
        self._write(out, split, raw, kept, gone)
        if not kept:
            raise self.lacking(
                f"usable sample of the {len(rows)} listed under {root} ({gone[0][0].id}: {gone[0][1]})",
                f"All reasons: {out / EXCLUDED}.",
            )
        checks = self.verify(out)
        counts = Counter(row.part for row, _ in kept)
        result = Prepared(
            out, out / MANIFEST, out / CARD, out / CONFIG, tuple(out / f"{name}.yaml" for name in self.recipes),
            {part: counts[part] for part in PARTS if counts[part]}, dict(excluded.most_common()), checks,
        )  # fmt: skip
        files.write_text(result.card, self._card(split, result, self.notes(raw, split)))
        return result

    def verify(self, out: str | Path) -> list[Check]:
        """Compare a prepared folder with what is published.

        Raises:
            FileNotFoundError: ``out`` holds no prepared data set.
            ValueError: it holds another one.
        """
        out = Path(out).expanduser()
        if not (out / STATE).is_file() or not (out / MANIFEST).is_file():
            raise FileNotFoundError(f"{out} holds no prepared data set. First: counterpoise data prepare {self.name}")
        try:
            state = json.loads((out / STATE).read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or no UTF-8
            raise ValueError(f"{out / STATE} is damaged ({error}): run `counterpoise data prepare` again.") from error
        if state["dataset"] != self.name:
            raise ValueError(f"{out} holds {state['dataset']}, not {self.name}.")
        paths = [m for m, reader in self.readers().items() if reader.reads_files]  # texts are not looked at
        grouped = ["group"] if "group" in files.header(out / MANIFEST) else []
        samples = files.read_table(out / MANIFEST, ["id", "label", "split", *grouped, *paths, *self.measures])
        excluded = files.read_table(out / EXCLUDED, ["label", "split"])
        return list(self._checks(out, state, samples, excluded))

    def _checks(
        self, out: Path, state: dict[str, Any], samples: list[dict[str, str]], excluded: list[dict[str, str]]
    ) -> Iterator[Check]:
        split = state["split"]
        for name, digest in self.lists.items():
            yield Check.same(f"SHA-256 of list {name}", digest[:16], state["lists"].get(name, "none")[:16])
        yield from checks.counts(self.published(split), samples, excluded)
        yield from checks.leaks(samples, self.shared_groups.get(split))
        for m, reader in self.readers().items():
            if reader.reads_files:
                gone = checks.missing(out, samples, m)
                yield gone
                if gone.ok:
                    yield checks.same_content(out, samples, m)
        if samples:
            yield from self.further(out, samples)

    def _converted(
        self, raw: Any, rows: list[Row], out: Path, workers: int, progress: bool
    ) -> list[dict[str, str] | str]:
        """The cells of every sample, or why it is left out."""
        first: dict[str, int] = {}
        results: list[dict[str, str] | str] = [""] * len(rows)
        jobs = []
        for i, row in enumerate(rows):
            if first.setdefault(row.id, i) != i:
                results[i] = f"id listed twice: first as sample {first[row.id] + 1} of the list"
            elif row.label not in self.classes:
                results[i] = f"unknown label: {row.label!r} is none of {', '.join(self.classes)}"
            else:
                jobs.append(i)
        todo, taking, stop = iter(jobs), threading.Lock(), threading.Event()
        with ExitStack() as stack:
            step = stack.enter_context(files.bar(f"preparing {self.name}", len(jobs))) if progress else lambda: None
            pool = stack.enter_context(ThreadPoolExecutor(workers))
            stack.callback(stop.set)  # after Ctrl-C or an error: no further sample

            def work() -> None:
                while not stop.is_set():
                    with taking:
                        i = next(todo, None)
                    if i is None:
                        return
                    results[i] = self._one(raw, rows[i], out)
                    step()

            for done in as_completed([pool.submit(work) for _ in range(workers)]):
                done.result()
        return results

    def _one(self, raw: Any, row: Row, out: Path) -> dict[str, str] | str:
        try:
            return self.convert(raw, row, out)
        except Excluded as reason:
            return str(reason)
        except ReadError as error:
            return f"damaged: {error}"

    def _write(
        self, out: Path, split: str, raw: Any, kept: list[tuple[Row, dict[str, str]]], gone: list[tuple[Row, str]]
    ) -> None:
        import yaml

        grouped = any(row.group for row, _ in kept)
        header = ["id", "label", "split", *(["group"] if grouped else []), *self.modalities, *self.measures]
        files.write_table(
            out / MANIFEST,
            header,
            (
                [row.id, row.label, row.part, *([row.group] if grouped else [])]
                + [cell.get(name, "") for name in (*self.modalities, *self.measures)]
                for row, cell in kept
            ),
        )
        files.write_table(
            out / EXCLUDED, ["id", "label", "split", "reason"], ([r.id, r.label, r.part, why] for r, why in gone)
        )
        state = {"dataset": self.name, "split": split, "lists": self.checksums(raw)}
        files.write_text(out / STATE, json.dumps(state, indent=2) + "\n")
        options = self._options(out)
        title = f"# {self.title}: counterpoise fit --config {CONFIG}\n"
        files.write_text(out / CONFIG, title + yaml.safe_dump(options, sort_keys=False, width=100))
        for name in self.recipes:
            files.write_text(out / f"{name}.yaml", recipes.text(self.name, self.title, name, options))

    def _options(self, out: Path) -> dict[str, Any]:
        """Options of ``counterpoise fit``: the table with the published preprocessing and encoders."""
        readers = {
            m: {"class_path": type(reader).__name__, "init_args": _plain(settings(reader))}
            for m, reader in self.readers().items()
        }
        data = {"path": str((out / MANIFEST).resolve()), "classes": list(self.classes), "modalities": readers}
        encoders = {m: {"class_path": name, "init_args": _plain(args)} for m, (name, args) in self.encoders().items()}
        return {"data": {"class_path": "Table", "init_args": data}, "encoders": encoders}

    def _card(self, split: str, made: Prepared, notes: list[str]) -> str:
        samples = files.read_table(made.manifest, ["split", "label"])
        of = Counter((row["split"], row["label"]) for row in samples)
        lines = [
            f"# {self.title}", "",
            f"- source: {self.source}", f"- licence: {self.licence}", f"- paper: {self.citation}",
            f"- split: {split} ({self.splits[split]})", f"- modalities: {', '.join(self.modalities)}",
            *(f"- {note}" for note in notes), "", "## Samples", "",
            "| class | " + " | ".join(made.counts) + " |", "|---" * (len(made.counts) + 1) + "|",
            *("| " + " | ".join([c, *(str(of[part, c]) for part in made.counts)]) + " |" for c in self.classes),
            "| total | " + " | ".join(str(n) for n in made.counts.values()) + " |", "",
            f"## Left out: {sum(made.excluded.values())}", "",
            *(f"- {n} x {kind}" for kind, n in made.excluded.items()),
            *([f"- each sample with its reason: {EXCLUDED}"] if made.excluded else []), "",
            "## Checks", "", checks.render(made.checks), "",
        ]  # fmt: skip
        return "\n".join(lines)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
