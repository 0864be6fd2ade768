"""What the command says: errors and their exit codes, listings, progress and tables. Decides words, not actions.

Keys may hold letters that mean something to rich (`[red]`), so nothing here is read as markup.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TextIO, runtime_checkable

from .. import (
    Config,
    ConfigError,
    Entry,
    InvalidArgumentError,
    InvalidKeyError,
    LocalConfig,
    MemoryConfig,
    NotFoundError,
    ObjectInfo,
    S3Config,
    StorageError,
    default_path,
)
from ..driver import show_key
from ..sessions import Event, Usage
from ._pipes import say

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console
    from rich.progress import Progress

    from ..http import PendingUpload, SweptUploads
    from ..testing import Result
    from ..transfer import Outcome, Report, TreeReport
    from ._demo import Figures, Rate

COMMAND = "micelio-storage"
FAILED, USAGE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 130  # 130: 128 + SIGINT, as shells have it
STOPPED = {signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal has gone"}  # the code is 128 + the signal
LONG = 8 << 20  # bytes from which on a transfer is worth a progress bar
MIB = 1 << 20
LONGEST_NAME = 200  # characters, of a name in a report


@runtime_checkable
class UsageError(Protocol):
    """An option or argument that typer refuses. (Its class has another name and place in each of typer's releases.)"""

    exit_code: int

    def format_message(self) -> str: ...


class CommandError(Exception):
    """The command cannot do it; the message says why."""


class NoStorageError(CommandError):
    """There is nothing where a storage is to be looked at."""


# -- errors


def exit_code(error: BaseException) -> int:
    """What the command ends with when this came out."""
    if isinstance(error, BaseExceptionGroup):
        codes = {exit_code(inner) for inner in error.exceptions}
        return codes.pop() if len(codes) == 1 else FAILED
    if isinstance(error, (NotFoundError, NoStorageError)):
        return NOT_FOUND
    if isinstance(error, UsageError):
        return int(error.exit_code)
    if isinstance(error, (InvalidKeyError, InvalidArgumentError, ConfigError)):
        return USAGE
    return FAILED


def error_lines(error: BaseException) -> list[str]:
    """One line for each thing that went wrong."""
    if isinstance(error, BaseExceptionGroup):
        return [line for inner in error.exceptions for line in error_lines(inner)]
    return [f"{COMMAND}: {_one_line(_message(error))}"]


def print_errors(lines: Iterable[str]) -> None:
    """Write to standard error, if there is one that somebody reads."""
    with suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.writelines(f"{line}\n" for line in lines)
            sys.stderr.flush()


def _message(error: BaseException) -> str:
    if isinstance(error, (StorageError, CommandError)):
        return str(error)
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        return f"{error.format_message()} ({context.command_path if context else COMMAND} --help shows how)"
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        return what if error.filename is None else f"{error.filename!a}: {what}"
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


def chunk_json(key: str, offset: int, chunk: bytes) -> str:
    """Some of an object's bytes, which JSON cannot hold as they are."""
    return json.dumps({"key": key, "offset": offset, "base64": base64.b64encode(chunk).decode()})


def file_json(key: str, path: str, size: int) -> str:
    return json.dumps({"key": key, "path": path, "size": size})


def would_remove_json(key: str, size: int) -> str:
    return json.dumps({"key": key, "size": size})


def removed_key_json(key: str) -> str:
    return json.dumps({"key": key, "removed": True})


def removed_json(objects: int, skipped: int, size: int | None = None) -> str:
    """The sum; with the bytes where nothing was removed yet."""
    document = {"removed": objects, "skipped": skipped}
    return json.dumps(document if size is None else document | {"bytes": size, "dry_run": True})


def amount(objects: int, size: int) -> str:
    return f"{objects:,} object{'' if objects == 1 else 's'} ({size:,} bytes)"


def upload_json(upload: PendingUpload) -> str:
    document = dataclasses.asdict(upload) | {"expires": upload.expires.isoformat(timespec="seconds")}
    return json.dumps(document)


def upload_line(upload: PendingUpload, now: datetime | None = None) -> str:
    """An upload, how far it is, and when it expires; that it has, if `now` is given."""
    length = "?" if upload.length is None else f"{upload.length:,}"
    state = "done" if upload.is_done else f"{upload.received:,} of {length} bytes"
    ended = now is not None and upload.expires <= now
    until = f"{'expired' if ended else 'expires'} {upload.expires:%Y-%m-%d %H:%M:%S}Z"
    return f"{upload.id}  {state:>30}  {until}  {'' if upload.key is None else upload.key}".rstrip()


def swept_json(swept: SweptUploads, *, dry_run: bool) -> str:
    return json.dumps(dataclasses.asdict(swept) | {"dry_run": dry_run})


def swept_line(swept: SweptUploads, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    count = f"{swept.removed:,} upload{'' if swept.removed == 1 else 's'} ({swept.bytes:,} bytes)"
    return f"{would}removed: {count}, kept: {swept.kept:,}"


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


def session_line(name: str, usage: Usage | None) -> str:
    if usage is None:
        return name
    left_out = f"  ({usage.skipped:,} foreign left out)" if usage.skipped else ""
    return f"{usage.files:>9} files  {usage.bytes:>15} bytes  {name}{left_out}"


def session_json(name: str, usage: Usage | None) -> str:
    return json.dumps({"session": name} | ({} if usage is None else dataclasses.asdict(usage)))


def place(config: Config) -> str:
    """Where a storage with this configuration keeps its objects."""
    if isinstance(config, LocalConfig):
        return default_path() if config.path is None else os.path.expanduser(os.fsdecode(config.path))
    if isinstance(config, S3Config):
        return f"s3://{config.bucket}/{config.prefix}"
    return "the memory of this process"


# -- progress, for people: only where standard error is a terminal


class Meter:
    """How far a transfer is; shown when it is known to be long, or nobody knows how long it is."""

    def __init__(self, progress: Progress | None = None, name: str = "") -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(name, total=None, visible=False)

    def expect(self, size: int | None) -> None:
        """So many bytes will come."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=size, visible=size is None or size >= LONG)

    def show(self, done: int, total: int | None) -> None:
        """So many bytes have come, of so many."""
        self.expect(total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done)

    def advance(self, size: int) -> None:
        """So many bytes more have come."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, size)


@contextmanager
def transfer(name: str, *, unless_on_terminal: TextIO | None = None) -> Iterator[Meter]:
    """A meter for the transfer in the block, which shows nothing where the bytes themselves go to a terminal.

    Enter it outside of the event loop: it draws from a thread, but begins and ends where it is entered.
    """
    if not sys.stderr.isatty() or (unless_on_terminal is not None and unless_on_terminal.isatty()):
        yield Meter()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_errors_console(), transient=True) as progress:
        yield Meter(progress, name)


@contextmanager
def steps() -> Iterator[Callable[[str], object]]:
    """A line that says what is being done, set by what the block gets."""
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=_errors_console(), transient=True) as progress:
        task = progress.add_task("")
        yield lambda step: progress.update(task, description=step)


def _errors_console() -> Console:
    from rich.console import Console

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


def check_json(results: Sequence[Result]) -> Iterator[str]:
    """The same for programs."""
    for result in results:
        reasons = [] if result.error is None else list(_reasons(result.error))
        document = {"check": result.name, "promise": result.sentence, "kept": result.error is None, "reasons": reasons}
        yield json.dumps(document | {"seconds": round(result.seconds, 3)})
    kept = sum(result.error is None for result in results)
    yield json.dumps({"kept": kept, "of": len(results), "seconds": round(sum(one.seconds for one in results), 3)})


def _reasons(error: BaseException) -> Iterable[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _reasons(inner)
    else:
        yield _one_line(f"{type(error).__name__}: {error}")
    yield from (_one_line(note) for note in getattr(error, "__notes__", ()))


def outcome_json(outcome: Outcome) -> str:
    """What became of one key; what is not to be said is left out."""
    document = {"key": outcome.key, "result": outcome.result, "size": outcome.size}
    extra = {"reason": outcome.reason, "deleted": outcome.deleted or None}
    return json.dumps(document | {name: value for name, value in extra.items() if value is not None})


def migration_json(done: Report) -> str:
    document = {name: getattr(done, name) for name in _NUMBERS}
    return json.dumps(document | {"seconds": round(done.seconds, 3), "dry_run": done.dry_run})


_NUMBERS = ("copied", "skipped", "conflicts", "failed", "gone", "foreign", "deleted", "bytes")


def migration_lines(done: Report) -> Iterator[str]:
    """What was not copied and why, then the numbers."""
    for outcome in done.unsolved:
        where = whereabouts(outcome.key, escaped=outcome.result == "foreign")
        yield f"{outcome.result:<8}  {where}: {_one_line(outcome.reason or '')}"
    more = done.failed + done.conflicts + done.foreign - len(done.unsolved)
    if more:
        yield f"and {more:,} more"
    if done.conflicts:
        yield "conflicts were left as they are: --overwrite replaces what is at the target"
    would = "would be " if done.dry_run else ""
    parts = [f"{would}copied {done.copied:,}", f"skipped {done.skipped:,}", f"conflicts {done.conflicts:,}"]
    parts.append(f"failed {done.failed:,}")
    parts += [f"gone {done.gone:,}"] if done.gone else []
    parts += [f"foreign {done.foreign:,}"] if done.foreign else []
    parts += [f"{would}deleted {done.deleted:,}"] if done.deleted else []
    speed = f"{done.bytes / MIB / done.seconds:,.1f} MiB/s" if done.seconds and not done.dry_run else ""
    yield ", ".join(parts)
    yield ", ".join(filter(None, [f"{done.bytes:,} bytes", f"{done.seconds:.1f} s", speed]))


def tree_json(done: TreeReport) -> str:
    document = {name: getattr(done, name) for name in (*_OF_A_TREE, "bytes")}
    unsolved = [{"path": each.path, "result": each.result, "reason": each.reason} for each in done.unsolved]
    return json.dumps(document | {"seconds": round(done.seconds, 3), "dry_run": done.dry_run, "unsolved": unsolved})


_OF_A_TREE = ("copied", "unchanged", "removed", "skipped", "failed")


def tree_lines(done: TreeReport) -> Iterator[str]:
    """What was left and why, then the numbers."""
    for outcome in done.unsolved:
        yield f"{outcome.result:<8}  {show_key(outcome.path)}: {_one_line(outcome.reason or '')}"
    more = done.skipped + done.failed - len(done.unsolved)
    if more > 0:
        yield f"and {more:,} more"
    would = "would be " if done.dry_run else ""
    numbers = ", ".join(f"{name} {getattr(done, name):,}" for name in _OF_A_TREE)
    yield f"{would}{numbers}; {done.bytes:,} bytes, {done.seconds:.1f} s"


# -- events


def event_json(event: Event) -> str:
    at = event.at.isoformat(timespec="milliseconds")
    return json.dumps({"seq": event.seq, "at": at, "id": event.id, "data": event.data})


def event_line(event: Event) -> str:
    data = json.dumps(event.data, ensure_ascii=False)
    return f"{event.seq:>9}  {event.at:%Y-%m-%d %H:%M:%S}Z  {data}"


def whereabouts(key: str | None, *, escaped: bool = False) -> str:
    """What a line of a report is about: a key, a name that is none, which came escaped, or (None) the listing."""
    if key is None:
        return "the listing"
    return key[:LONGEST_NAME] if escaped else show_key(key)


def show_figures(figures: Figures) -> None:
    """The demo's table, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="measured in this run", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in _rows(figures):
        table.add_row(name, value)
    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    say(captured.get().splitlines())


def figures_json(figures: Figures, session_id: str, config: Config, *, keep: bool) -> str:
    """The demo's figures: of each step the number of things, their bytes and the seconds that they took."""
    document = {"session": session_id, "place": place(config), "kept": keep}
    return json.dumps(document | dataclasses.asdict(figures))


def demo_end(figures: Figures, session_id: str, config: Config, command: str, *, keep: bool) -> list[str]:
    """Where the data is or was, how to look at it, and that nothing was amiss."""
    session = f"{place(config)}, below sessions/{session_id}/"
    if isinstance(config, MemoryConfig):
        where = f"the data was in {session} and is gone with it; to look at data, name another storage"
    elif keep:
        where = f"kept in {session}; to look at it: {command} ls sessions/{session_id}/"
    else:
        where = f"removed again from {session}; with --keep it stays, and {command} ls --sessions --long shows it"
    return [where, f"everything read back equal: {figures.files:,} files, {figures.size:,} bytes"]


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
