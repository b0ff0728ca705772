"""Files and folders that appear whole or not at all, and lists that come with the library."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from counterpoise import _files


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of its folders, names of its files), sorted; links are followed, no folder is visited twice."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to where we came from, or a second link to the same place
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), list(folders), sorted(name for name in files if not name.startswith("."))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file or a folder at; it becomes ``target`` when nothing goes wrong inside, else it is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as scratch:
        temporary = Path(scratch) / target.name
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)


def place(source: Path, target: Path) -> None:
    """``source`` at ``target`` as well: a second name of the same file where the file system can, else a copy."""
    with replacing(target) as temporary:
        link(source, temporary)


def link(source: Path, target: Path) -> None:
    """As `place`, for a target in a folder that is being written itself."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file, in one go."""
    with _files.writing(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_table(path: Path, columns: Iterable[str] | None = None) -> list[dict[str, str]]:
    """The rows of a CSV file by column.

    Args:
        path: the file, as `write_table` writes it.
        columns: which columns to keep, those that must be there; None keeps all.

    Raises:
        ValueError: the file is no such table; with the line.
    """
    again = "Another program has changed it: run `counterpoise data prepare` again."
    rows: list[dict[str, str]] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            wanted = list(reader.fieldnames or ()) if columns is None else list(columns)
            if lacking := [name for name in wanted if name not in (reader.fieldnames or ())]:
                raise ValueError(f"{path}: there is no column {lacking[0]!r}. {again}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: not as many cells as columns. {again}")
                rows.append({name: row[name] for name in wanted})
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 ({error.reason}). {again}") from error
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}. {again}") from error
    return rows


def header(path: Path) -> list[str]:
    """The names of the columns of a CSV file."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader(file), [])


def write_text(path: Path, text: str) -> None:
    """A text file, in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write_text(path, text)


def sha256(content: bytes) -> str:
    """Checksum of a list; line endings and a byte order mark do not count."""
    text = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return hashlib.sha256(text).hexdigest()


def fact_bytes(name: str) -> bytes:
    """The content of ``facts/<name>.csv.gz``."""
    return gzip.decompress((resources.files("counterpoise.datasets") / "facts" / f"{name}.csv.gz").read_bytes())


def facts(name: str) -> list[dict[str, str]]:
    """The rows of a packaged list by column."""
    return list(csv.DictReader(fact_bytes(name).decode().splitlines()))


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; gives the function that moves it by one."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
