"""Sessions as they were: `snapshot` and `workspace`, each with commands of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Annotated, TypeAlias, TypeVar

import typer

from .. import InvalidArgumentError, NotFoundError, Session, Storage
from ..driver import show_key
from ..sessions import Keep, RestoreReport, Snapshot, SnapshotChange
from ..transfer import TreeReport
from . import _report as report
from ._help import SETTINGS, Command, Group
from ._invocation import Invocation, require_storage
from ._options import DryRunOption, JsonOption, SessionArgument, StorageOption, parse_pairs
from ._pipes import say, write_lines

LATEST = "latest"
T = TypeVar("T")

SnapshotArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="its id; `latest`, or `latest~N` for the Nth before it")
]
DirectoryArgument: TypeAlias = Annotated[str, typer.Argument(metavar="DIRECTORY", help="of the local disk")]
MessageOption: TypeAlias = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="to be kept with it")]
TagOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="may be given several times")
]
IgnoreOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="as in .gitignore; may be given several times")
]
DeleteOption: TypeAlias = Annotated[bool, typer.Option("--delete", help="remove what is not in the snapshot")]

snapshots = typer.Typer(cls=Group, context_settings=SETTINGS, rich_markup_mode=None, no_args_is_help=True)
workspaces = typer.Typer(cls=Group, context_settings=SETTINGS, rich_markup_mode=None, no_args_is_help=True)


@snapshots.callback()
def snapshot() -> None:
    """Keep sessions as they are, look at them as they were, and bring that back."""


@workspaces.callback()
def workspace() -> None:
    """Let a directory survive its machine: load what was saved last, save what is there."""


def _run(context: typer.Context, storage: str | None, session: str, act: Callable[[Session], Awaitable[T]]) -> T:
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def on(opened: Storage) -> T:
        return await act(Session(opened, session))

    return invocation.run(on)


async def find(session: Session, name: str) -> Snapshot:
    """The snapshot that is meant; `NotFoundError` where there is none."""
    word, tilde, number = name.partition("~")
    if word != LATEST:
        return await session.snapshots.get(name)
    if tilde and not (number.isascii() and number.isdigit() and len(number) < 9):
        raise InvalidArgumentError(f"{name!a} is neither the id of a snapshot nor like latest~1")
    left = int(number or 0)
    async for each in session.snapshots.list():
        if not left and not each.is_undo:
            return each
        left -= not each.is_undo
    raise NotFoundError(f"session {session.id!a} has no snapshot {name}")


@snapshots.command(cls=Command)
def create(
    context: typer.Context,
    session: SessionArgument,
    directory: Annotated[
        str | None, typer.Option(metavar="DIRECTORY", help="keep this directory instead of the session's files")
    ] = None,
    message: MessageOption = "",
    tag: TagOption = None,
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Keep a session's files, or a directory, as they are. Prints the new snapshot's id.

    Exits with 1 if something was left: devices, files that change all the time."""
    invocation = Invocation.of(context, storage)
    return _keep(invocation, session, message, tag, directory=directory, ignore=ignore or (), as_json=as_json)


@snapshots.command(cls=Command)
def ls(
    context: typer.Context, session: SessionArgument, as_json: JsonOption = False, storage: StorageOption = None
) -> None:
    """List the snapshots of a session, the newest first."""

    async def act(one: Session) -> None:
        await write_lines(_lines(one, as_json=as_json))

    _run(context, storage, session, act)


async def _lines(session: Session, *, as_json: bool) -> AsyncIterator[str]:
    async for each in session.snapshots.list():
        yield _json(each) if as_json else _line(each)


@snapshots.command(cls=Command)
def diff(
    context: typer.Context,
    session: SessionArgument,
    old: SnapshotArgument,
    new: SnapshotArgument,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """List what was added, removed, changed and renamed from one snapshot to another."""

    async def lines(one: Session) -> AsyncIterator[str]:
        async for change in one.snapshots.diff(await find(one, old), await find(one, new)):
            yield _change_json(change) if as_json else _change_line(change)

    async def act(one: Session) -> None:
        await write_lines(lines(one))

    _run(context, storage, session, act)


@snapshots.command(cls=Command)
def restore(
    context: typer.Context,
    session: SessionArgument,
    snapshot: SnapshotArgument,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Make a session's files as they were. What is there now is kept in a snapshot of its own.

    Exits with 1 if some differ: others wrote them meanwhile, or what was there is no object. For a directory, see
    `workspace load`."""

    async def act(one: Session) -> RestoreReport:
        return await one.restore(await find(one, snapshot))

    done = _run(context, storage, session, act)
    say([_restored_json(done)] if as_json else _restored_lines(done))
    return 0 if done.complete else report.FAILED


@snapshots.command(cls=Command)
def fork(
    context: typer.Context,
    session: SessionArgument,
    snapshot: SnapshotArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="the new session's id")],
    files: Annotated[bool, typer.Option("--files", help="copy the files as well, as live files")] = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Begin a new session with a snapshot of another, with which it shares what is stored."""

    async def act(one: Session) -> Snapshot:
        other = await one.fork(new, await find(one, snapshot), files=files)
        return await find(other, LATEST)

    made = _run(context, storage, session, act)
    if as_json:
        say([_json(made)])


@snapshots.command(cls=Command)
def thin(
    context: typer.Context,
    session: SessionArgument,
    last: Annotated[int, typer.Option(min=0, metavar="N", help="keep the newest N")] = 0,
    hourly: Annotated[int, typer.Option(min=0, metavar="N", help="and the newest of each of N hours")] = 0,
    daily: Annotated[int, typer.Option(min=0, metavar="N", help="of each of N days (UTC)")] = 0,
    weekly: Annotated[int, typer.Option(min=0, metavar="N", help="of each of N weeks")] = 0,
    monthly: Annotated[int, typer.Option(min=0, metavar="N", help="of each of N months")] = 0,
    yearly: Annotated[int, typer.Option(min=0, metavar="N", help="of each of N years")] = 0,
    tagged_too: Annotated[bool, typer.Option("--tagged-too", help="delete those that have tags like others")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Delete snapshots of a session, but for those that are to be kept. Prints which.

    Of hours, days and so on, those count in which there is a snapshot. What has tags stays."""
    keep = Keep(
        last=last, hourly=hourly, daily=daily, weekly=weekly, monthly=monthly, yearly=yearly, tagged=not tagged_too
    )  # fmt: skip
    gone = _run(context, storage, session, lambda one: one.snapshots.thin(keep, dry_run=dry_run))
    if as_json:
        say([json.dumps({"deleted": [each.id for each in gone], "dry_run": dry_run})])
    else:
        say([*map(_line, gone), f"{'would be ' if dry_run else ''}deleted: {len(gone):,}"])


@workspaces.command(cls=Command)
def load(
    context: typer.Context,
    session: SessionArgument,
    directory: DirectoryArgument,
    snapshot: Annotated[str, typer.Option(metavar="SNAPSHOT", help="another one than what was saved last")] = LATEST,
    delete: DeleteOption = False,
    ignore: IgnoreOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Make a directory as a session's was saved last. Only what differs is written, and nothing through a link.

    Exits with 1 if something could not be written."""

    async def act(one: Session) -> TreeReport:
        found = await find(one, snapshot)
        return await found.write_to(directory, delete=delete, ignore=ignore or (), dry_run=dry_run)

    done = _run(context, storage, session, act)
    say([report.tree_json(done)] if as_json else report.tree_lines(done))
    return 0 if done.complete else report.FAILED


@workspaces.command(cls=Command)
def save(
    context: typer.Context,
    session: SessionArgument,
    directory: DirectoryArgument,
    message: MessageOption = "",
    tag: TagOption = None,
    ignore: IgnoreOption = None,
    if_parent: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="fail unless this is the id of the latest one")
    ] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Save a directory as a session's: what has changed is stored. Prints the new snapshot's id.

    Exits with 1 if something was left: devices, files that change all the time."""
    return _keep(
        Invocation.of(context, storage),
        session,
        message,
        tag,
        directory=directory,
        ignore=ignore or (),
        if_parent=if_parent,
        as_json=as_json,
    )


def _keep(
    invocation: Invocation,
    session: str,
    message: str,
    tag: list[str] | None,
    *,
    directory: str | None,
    ignore: Sequence[str],
    if_parent: str | None = None,
    as_json: bool,
) -> int:
    """Make a snapshot, and tell of it."""
    tags = parse_pairs("--tag", tag or [])

    async def act(opened: Storage) -> Snapshot:
        kept = Session(opened, session).snapshots
        return await kept.create(message, tags=tags, directory=directory, ignore=ignore, if_parent=if_parent)

    return _tell(invocation.run(act), as_json=as_json)


# -- what they say


def _tell(made: Snapshot, *, as_json: bool) -> int:
    say([_json(made) if as_json else made.id])
    report.print_errors([f"left: {show_key(left.path)}: {left.reason}" for left in made.unsolved])
    return 0 if made.complete else report.FAILED


def _json(snapshot: Snapshot) -> str:
    usage = snapshot.usage
    return json.dumps(
        {
            "id": snapshot.id,
            "session": snapshot.session,
            "parent": snapshot.parent,
            "created": snapshot.created.isoformat(timespec="milliseconds"),
            "files": usage.files,
            "bytes": usage.bytes,
            "consistent": snapshot.consistent,
            "events": snapshot.events,
            "message": snapshot.message,
            "tags": dict(snapshot.tags),
            "left": usage.skipped,
            "is_undo": snapshot.is_undo,
        }
    )


def _line(snapshot: Snapshot) -> str:
    usage = snapshot.usage
    said = " ".join([*snapshot.message.split(), *(f"{name}={value}" for name, value in snapshot.tags.items())])
    amount = report.amount(usage.files, usage.bytes)
    return f"{snapshot.id}  {snapshot.created:%Y-%m-%d %H:%M:%S}Z  {amount}  {said}".rstrip()


def _change_json(change: SnapshotChange) -> str:
    return json.dumps({"path": change.path, "kind": change.kind, "size": change.size, "former": change.former})


def _change_line(change: SnapshotChange) -> str:
    former = "" if change.former is None else f" (was {show_key(change.former)})"
    return f"{change.kind:<8}  {show_key(change.path)}{former}"


def _restored_json(done: RestoreReport) -> str:
    numbers = {name: getattr(done, name) for name in ("copied", "unchanged", "deleted", "conflicts", "skipped")}
    return json.dumps(numbers | {"undo": done.undo.id, "snapshot": done.snapshot.id})


def _restored_lines(done: RestoreReport) -> Iterator[str]:
    for path in done.conflicts:
        yield f"conflict  {show_key(path)}: others wrote it meanwhile"
    for path in done.skipped:
        yield f"skipped   {show_key(path)}: no object can be made of it"
    yield f"copied {done.copied:,}, unchanged {done.unchanged:,}, deleted {done.deleted:,}; before: {done.undo.id}"
