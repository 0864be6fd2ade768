"""What the command says: errors and their exit codes, listings, progress and tables. Decides words, not actions.

Keys may hold letters that mean something to rich (`[red]`), so nothing here is read as markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

from ._cli_pipes import emit
from ._demo import Figures, Rate
from ._errors import ConfigError, InvalidArgumentError, InvalidKeyError, NotFoundError, StorageError
from ._open import Config, LocalConfig, S3Config
from ._types import Entry, ObjectInfo

if TYPE_CHECKING:
    from .testing import Result

COMMAND = "micelio-storage"
FAILED, USAGE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 130  # 130: 128 + SIGINT, as shells have it
LONG = 8 << 20  # bytes from which on a transfer is worth a progress bar
MIB = 1 << 20


# -- errors


def exit_code(error: BaseException) -> int:
    """What the command ends with when this came out."""
    if isinstance(error, BaseExceptionGroup):
        codes = {exit_code(inner) for inner in error.exceptions}
        return codes.pop() if len(codes) == 1 else FAILED
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, (InvalidKeyError, InvalidArgumentError, ConfigError)):
        return USAGE
    return FAILED


def error_lines(error: BaseException) -> list[str]:
    """One line for each thing that went wrong."""
    if isinstance(error, BaseExceptionGroup):
        return [line for inner in error.exceptions for line in error_lines(inner)]
    return [f"{COMMAND}: {_one_line(_message(error))}"]


def _message(error: BaseException) -> str:
    if isinstance(error, StorageError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename!a}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- objects


def entry_line(entry: Entry, *, long: bool) -> str:
    if not long:
        return entry.key
    return f"{entry.size:>13}  {entry.modified:%Y-%m-%d %H:%M:%S}Z  {entry.key}"


def entry_json(entry: Entry) -> str:
    modified = entry.modified.isoformat()
    return json.dumps({"key": entry.key, "size": entry.size, "etag": entry.etag, "modified": modified})


def info_json(key: str, info: ObjectInfo) -> str:
    document = {
        "key": key,
        "size": info.size,
        "etag": info.etag,
        "modified": info.modified.isoformat(),
        "content_type": info.content_type,
        "metadata": dict(info.metadata),
        "checksum": info.checksum,
    }
    return json.dumps(document)


def info_lines(key: str, info: ObjectInfo) -> list[str]:
    lines = [
        f"key           {key}",
        f"size          {info.size}",
        f"etag          {info.etag}",
        f"modified      {info.modified.isoformat()}",
        f"content type  {info.content_type}",
    ]
    if info.checksum is not None:
        lines.append(f"checksum      {info.checksum}")
    return lines + [f"metadata      {name}={value}" for name, value in sorted(info.metadata.items())]


def place(config: Config) -> str:
    """Where a storage with this configuration keeps its objects."""
    if isinstance(config, LocalConfig):
        return str(config.path)
    if isinstance(config, S3Config):
        return f"s3://{config.bucket}/{config.prefix}"
    return "the memory of this process"


# -- progress, for people: only where standard error is a terminal


@contextmanager
def transfer(name: str, size: int | None) -> Iterator[Callable[[int], object]]:
    """A bar for a transfer of so many bytes (None: nobody knows), advanced by what the block gets."""
    console = _errors_console()
    if not console.is_terminal or (size is not None and size < LONG):
        yield _ignore
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=size)
        yield lambda more: progress.advance(task, more)


@contextmanager
def steps() -> Iterator[Callable[[str], object]]:
    """A line that says what is being done, set by what the block gets."""
    console = _errors_console()
    if not console.is_terminal:
        yield _ignore
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        yield lambda step: progress.update(task, description=step)


def _errors_console() -> Console:
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def _ignore(_: object) -> None:
    """Nobody watches."""


# -- reports


def check_lines(results: Sequence[Result], where: str) -> Iterator[str]:
    """The conformance kit's report: what was tried, what was not kept and why, and a summary."""
    for result in results:
        yield f"{'kept  ' if result.error is None else 'BROKEN'}  {result.seconds:8.3f} s  {result.name}"
        if result.error is not None:
            yield f"        promised: {result.sentence}"
            yield from (f"        {line}" for line in _reasons(result.error))
    kept = sum(result.error is None for result in results)
    seconds = sum(result.seconds for result in results)
    yield f"{kept} of {len(results)} promises are kept by {where} ({seconds:.1f} s)"


def _reasons(error: BaseException) -> Iterable[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _reasons(inner)
    else:
        yield _one_line(f"{type(error).__name__}: {error}")
    yield from (_one_line(note) for note in getattr(error, "__notes__", ()))


def show_figures(figures: Figures) -> None:
    """The demo's table, on standard output."""
    table = Table(title="measured in this run", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in _rows(figures):
        table.add_row(name, value)
    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    emit(captured.get())


def _rows(figures: Figures) -> Iterator[tuple[str, str]]:
    yield "files", f"{figures.files:,}"
    for reason, count in sorted(figures.skipped.items()):
        yield f"skipped: {reason}", f"{count:,}"
    if not figures.skipped:
        yield "skipped", "0"
    yield "bytes", f"{figures.size:,}"
    yield "put", _files_and_bytes(figures.put)
    yield "get", _files_and_bytes(figures.get)
    yield f"stream in ({figures.stream_in.size / MIB:,.0f} MiB)", _bytes_a_second(figures.stream_in)
    yield f"stream out ({figures.stream_out.size / MIB:,.0f} MiB)", _bytes_a_second(figures.stream_out)
    yield "list", f"{figures.listing.seconds * 1e3:,.1f} ms"
    yield "metadata updates, two at once", f"{figures.updates.each_second:,.0f}/s"
    yield "the loop's lateness, worst", f"{figures.lateness.worst * 1e3:,.1f} ms"
    yield "the loop's lateness, p99", f"{figures.lateness.p99 * 1e3:,.1f} ms"
    yield "peak memory over the start", f"{figures.peak / MIB:,.1f} MiB"


def _files_and_bytes(rate: Rate) -> str:
    return f"{rate.each_second:,.0f} files/s, {_bytes_a_second(rate)}"


def _bytes_a_second(rate: Rate) -> str:
    return f"{rate.bytes_each_second / MIB:,.0f} MiB/s"
