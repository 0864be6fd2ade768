"""The `micelio-storage` command: what each part of it takes and does. What it says is in `_report`.

Errors are raised where they happen, and become lines and an exit code in one place: `run`.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
import sysconfig
import traceback
import warnings
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from .. import (
    Config,
    InvalidArgumentError,
    Key,
    LocalConfig,
    MemoryConfig,
    Storage,
    make_driver,
    open_storage,
)
from ..sessions import Session, list_sessions
from ..transfer import everything
from . import _operations as operations
from . import _report as report
from ._archives import archive, unarchive
from ._changes import cp, mv, rm
from ._directories import get_directory, put_directory, sync
from ._doctor import doctor
from ._expiry import collect, hold, release, sweep, touch
from ._help import SETTINGS, Command, Group
from ._integrity import soak_it, verify_all
from ._invocation import Invocation, StoppedError, ask, require_storage, run_on_loop
from ._options import (
    IfAbsentOption,
    JsonOption,
    KeyArgument,
    RecursiveOption,
    StorageOption,
    UrlArgument,
    YesOption,
    parse_pairs,
)
from ._pipes import ClosedPipeError, Output, encoded, say, write_lines
from ._sessions import events
from ._snapshots import snapshots, workspaces
from ._transfer import receive, send
from ._uploads import uploads
from .serve import serve

NOT_THE_LIBRARY = frozenset({"site-packages", "__pycache__"})  # what the standard library's directory has besides it
ARTIFACT_MIB = 256
MIB = 1 << 20
HOUR = 3600  # seconds

app = typer.Typer(
    cls=Group,
    context_settings=SETTINGS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.",
)

command = partial(app.command, cls=Command)


class Method(StrEnum):
    """What a signed URL allows."""

    GET = "GET"
    PUT = "PUT"


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Whatever goes wrong is said here, on standard error."""
    invocation = Invocation()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            outcome = app(list(arguments), prog_name=report.COMMAND, standalone_mode=False, obj=invocation)
    except (KeyboardInterrupt, typer.Abort):
        outcome = report.INTERRUPTED
    except StoppedError as error:
        report.print_errors([f"{report.COMMAND}: {report.STOPPED[error.number]}"])
        return 128 + error.number
    except ClosedPipeError:
        return report.FAILED
    except Exception as error:  # noqa: BLE001  # nothing but a line comes out of the command
        if invocation.debug:
            traceback.print_exception(error)
        report.print_errors(report.error_lines(error))
        return report.exit_code(error)
    if outcome == report.INTERRUPTED:
        report.print_errors([f"{report.COMMAND}: interrupted"])
    return outcome if isinstance(outcome, int) else 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    report.print_errors([f"{report.COMMAND}: warning: {message}"])


# -- the commands


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            say([f"{report.COMMAND} {version('micelio_storage')}"])
        except PackageNotFoundError:
            say([f"{report.COMMAND}, not installed: run from its source"])
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    storage: StorageOption = None,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[  # noqa: ARG001  # its callback acts
        bool, typer.Option("--version", help="show the version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Work with the objects and sessions of a storage."""
    invocation = Invocation.of(context)
    invocation.url, invocation.debug = storage, debug


@command()
def put(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a file, or - for standard input")],
    key: KeyArgument,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="such as text/plain")] = None,
    if_absent: IfAbsentOption = False,
    if_match: Annotated[
        str | None, typer.Option(metavar="ETAG", help="fail unless the object that is there has this ETag")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="may be given several times")] = None,
    recursive: RecursiveOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Store a file, or standard input, under a key: all of it or nothing. Prints the new ETag.

    With -r, store what is in a directory below a prefix, as `sync` does."""
    if recursive:
        if content_type or if_absent or if_match or metadata:
            raise InvalidArgumentError("-r stores many objects: leave out the options for one")
        return put_directory(Invocation.of(context, storage), source, key, as_json=as_json)
    pairs = parse_pairs("--metadata", metadata or [])
    with report.transfer(key) as meter:
        store = partial(
            send,
            source=source,
            key=key,
            meter=meter,
            content_type=content_type,
            if_absent=if_absent,
            if_match=if_match,
            metadata=pairs,
        )
        info = Invocation.of(context, storage).run(store)
    say([report.info_json(key, info) if as_json else info.etag])
    return 0


@command()
def get(
    context: typer.Context,
    key: KeyArgument,
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="a file or directory; default: the last part of the key")
    ] = None,
    recursive: RecursiveOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Write an object to a file: all of it or nothing.

    With -r, write what is below a prefix to a directory, as `sync` does."""
    if recursive:
        return get_directory(Invocation.of(context, storage), key, str(target or "."), as_json=as_json)
    name = Key.parse(key).name
    if target == Path("-"):
        raise InvalidArgumentError("use `cat` to write an object to standard output")
    path = Path(name) if target is None else target / name if target.is_dir() else target
    with report.transfer(key) as meter:
        size = Invocation.of(context, storage).run(partial(receive, key=key, path=path, meter=meter))
    if as_json:
        say([report.file_json(key, str(path), size)])
    return 0


@command()
def cat(
    context: typer.Context,
    key: KeyArgument,
    offset: Annotated[int, typer.Option(metavar="BYTES", help="where to start; negative: from the end")] = 0,
    length: Annotated[int | None, typer.Option(metavar="BYTES", help="at most so many")] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Write an object, or a part of it, to standard output.

    With --json each line has some of the bytes in Base64, and their offset from the first one."""

    async def act(opened: Storage) -> None:
        written = 0
        async with Output() as output, opened.open_read(key, offset=offset, length=length) as reader:
            meter.expect(reader.size)
            async for chunk in reader:
                await output.write(encoded(report.chunk_json(key, written, chunk) + "\n") if as_json else chunk)
                written += len(chunk)
                meter.advance(len(chunk))

    with report.transfer(key, unless_on_terminal=sys.stdout) as meter:
        Invocation.of(context, storage).run(act)


@command()
def ls(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="what keys (or session ids) begin with", show_default=False)
    ] = "",
    sessions: Annotated[bool, typer.Option("--sessions", help="list session ids")] = False,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="with size and time; of sessions, files and bytes")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="list what is left out: names that are not keys, escaped")
    ] = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """List objects or sessions, in the order of their names."""
    if foreign and (sessions or long):
        raise InvalidArgumentError("--foreign lists names alone: leave --sessions and --long out")
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def objects(opened: Storage) -> AsyncIterator[str]:
        async for entry in opened.list(prefix):
            yield report.entry_json(entry) if as_json else report.entry_line(entry, long=long)

    async def ids(opened: Storage) -> AsyncIterator[str]:
        async for name in list_sessions(opened):
            if name.startswith(prefix):
                usage = await Session(opened, name).usage() if long else None
                yield report.session_json(name, usage) if as_json else report.session_line(name, usage)

    async def act(opened: Storage) -> None:
        await write_lines(
            ids(opened) if sessions else _foreign(opened, prefix, as_json=as_json) if foreign else objects(opened)
        )

    invocation.run(act)


async def _foreign(storage: Storage, prefix: str, *, as_json: bool) -> AsyncIterator[str]:
    async for found in everything(storage, prefix):
        if isinstance(found, str):
            yield json.dumps({"foreign": found}) if as_json else found


@command()
def stat(context: typer.Context, key: KeyArgument, as_json: JsonOption = False, storage: StorageOption = None) -> None:
    """Show what is known about an object: size, ETag, time, content type, metadata."""
    info = Invocation.of(context, storage).run(lambda opened: opened.head(key))
    say([report.info_json(key, info)] if as_json else report.info_lines(key, info))


@command()
def url(
    context: typer.Context,
    key: KeyArgument,
    expires: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="how long it works, at most a week")] = HOUR,
    method: Annotated[Method, typer.Option(metavar="GET|PUT", help="to fetch or to store the object")] = Method.GET,
    content_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="of the answer to a GET; what a PUT must have")
    ] = None,
    content_disposition: Annotated[
        str | None, typer.Option(metavar="TEXT", help="of the answer to a GET, such as attachment")
    ] = None,
    content_length: Annotated[int | None, typer.Option(metavar="BYTES", help="that a PUT must have")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="of what a PUT may store")] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="a PUT may create the object, once")] = False,
    round_to: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="same URL for so long, so that caches keep the answer")
    ] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Print a signed URL that lets anybody who has it fetch (or store) one object.

    The store verifies it on S3. A local storage has signed URLs where STORAGE_PUBLIC_URL and STORAGE_URL_KEYS are set,
    and your application serves them; without, this says so."""
    sign = partial(
        Storage.url,
        key=key,
        expires=expires,
        method=method.value,
        content_type=content_type,
        content_disposition=content_disposition,
        content_length=content_length,
        sha256=None if sha256 is None else _parse_digest(sha256),
        if_absent=if_absent,
        round_to=round_to,
    )
    signed = Invocation.of(context, storage).run(sign)
    if as_json:
        until = None if signed.until is None else signed.until.isoformat(timespec="seconds")
        told = {"key": key, "url": signed, "method": method, "expires": expires, "until": until}
        say([json.dumps(told | {"headers": dict(signed.headers)})])
        return
    say([signed])
    report.print_errors([f"send with it: {name}: {value}" for name, value in signed.headers.items()])


def _parse_digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidArgumentError(f"--sha256 {text!a} is not in hexadecimal digits, as sha256sum gives them") from None


command()(rm)
command()(cp)
command()(mv)
command()(sync)
command()(events)
app.add_typer(snapshots, name="snapshot")
app.add_typer(workspaces, name="workspace")
command()(serve)
command()(uploads)
command()(sweep)
command()(touch)
command()(hold)
command()(release)
command()(collect)
command()(archive)
command()(unarchive)
command()(operations.migrate)
command()(operations.policy)
command()(doctor)
command("verify")(verify_all)
command("soak")(soak_it)


@command()
def check(
    context: typer.Context, url: UrlArgument = None, as_json: JsonOption = False, storage: StorageOption = None
) -> None:
    """Run the conformance kit: does a store keep every promise?

    It works below scratch prefixes, and removes what it stored."""
    from ..testing import Result, run_all

    config = Invocation.of(context, storage, url).config()

    async def act() -> list[Result]:
        async with open_storage(config):
            pass  # what is wrong with the store as such is said once, and not by every check
        return await run_all(partial(make_driver, config), tell=lambda result: tell(result.name))

    with report.steps() as tell:
        results = run_on_loop(act())
    say(report.check_json(results) if as_json else report.check_lines(results, report.place(config)))
    if any(result.error is not None for result in results):
        raise typer.Exit(report.FAILED)


DirectoryArgument: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="DIRECTORY", help="what to store; default: Python's library", exists=True, file_okay=False),
]


@command()
def demo(
    context: typer.Context,
    directory: DirectoryArgument = None,
    artifact_mib: Annotated[int, typer.Option(min=0, metavar="MIB", help="size of the artifact")] = ARTIFACT_MIB,
    keep: Annotated[bool, typer.Option("--keep", help="leave the session in the storage")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Store real files as a session, read them back, compare, and measure.

    It stores a directory and one large artifact, and removes the session in the end. It asks before it writes into a
    storage that the environment names and that is there already."""
    from ._demo import run_demo

    invocation = Invocation.of(context, storage)
    config = invocation.config()
    if not yes and invocation.url is None and _is_in_use(config):
        ask(lambda: f"Store a session of the demo, which is removed in the end, in {report.place(config)}?")
    session_id = f"demo-{secrets.token_hex(4)}"
    source = Path(sysconfig.get_path("stdlib")) if directory is None else directory
    if not as_json:
        say([f"storing {source} as session {session_id} in {report.place(config)}"])
    with report.steps() as tell:
        act = partial(
            run_demo,
            directory=source,
            excluded=NOT_THE_LIBRARY if directory is None else (),
            session_id=session_id,
            artifact_bytes=artifact_mib * MIB,
            keep=keep,
            tell=tell,
        )
        figures = invocation.run(act)
    if as_json:
        say([report.figures_json(figures, session_id, config, keep=keep)])
        return
    report.show_figures(figures)
    again = report.COMMAND + ("" if invocation.url is None else f" --storage {shlex.quote(invocation.url)}")
    say(report.demo_end(figures, session_id, config, again, keep=keep))


def _is_in_use(config: Config) -> bool:
    """Whether the storage was set up for something else than demos."""
    if config == LocalConfig() or isinstance(config, MemoryConfig):
        return False
    return not isinstance(config, LocalConfig) or os.path.exists(report.place(config))
