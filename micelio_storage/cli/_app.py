"""The `micelio-storage` command: what each part of it takes and does. What it says is in `_report`.

Errors are raised where they happen, and become lines and an exit code in one place: `run`.
"""

from __future__ import annotations

import json
import secrets
import shlex
import sys
import sysconfig
import traceback
import warnings
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import (
    InvalidArgumentError,
    Key,
    Storage,
    config_from_url,
    make_driver,
    open_storage,
)
from ..driver import show_key
from ..sessions import Session, list_sessions
from ..transfer import CONCURRENCY, everything
from . import _operations as operations
from . import _report as report
from ._doctor import doctor
from ._integrity import soak_it, verify_all
from ._invocation import Invocation, StoppedError, require_storage, run_on_loop
from ._operations import ConcurrencyOption, DryRunOption, JsonOption, OverwriteOption
from ._pipes import ClosedPipeError, Output, say, write_lines
from ._transfer import receive, send

NOT_THE_LIBRARY = frozenset({"site-packages", "__pycache__"})  # what the standard library's directory has besides it
ARTIFACT_MIB = 256
MIB = 1 << 20

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 130 interrupted.",
)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="the object's key")]


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
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", "-s", metavar="URL", help="file:///path, memory: or s3://bucket/prefix; else the environment's"
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show where an error comes from")] = False,
    version: Annotated[  # noqa: ARG001  # its callback acts
        bool, typer.Option("--version", help="show the version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Objects of a storage: put, get and look at them."""
    invocation = Invocation.of(context)
    invocation.url, invocation.debug = storage, debug


@app.command()
def put(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a file, or - for standard input")],
    key: KeyArgument,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="such as text/plain")] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="only where there is no object")] = False,
    if_match: Annotated[str | None, typer.Option(metavar="ETAG", help="only over the object with it")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="repeatable")] = None,
) -> None:
    """Store a file or standard input under a key: all of it or nothing."""
    pairs = _parse_metadata(metadata or [])
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
        Invocation.of(context).run(store)


def _parse_metadata(texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgumentError(f"--metadata {text!a} is not of the form name=value")
        if name in pairs:
            raise InvalidArgumentError(f"--metadata {name!a} is given twice")
        pairs[name] = value
    return pairs


@app.command()
def get(
    context: typer.Context,
    key: KeyArgument,
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="a file or directory; else named as the key ends")
    ] = None,
) -> None:
    """Write an object to a file: all of it or nothing."""
    name = Key.parse(key).name
    if target == Path("-"):
        raise InvalidArgumentError("use `cat` to write an object to standard output")
    path = Path(name) if target is None else target / name if target.is_dir() else target
    with report.transfer(key) as meter:
        Invocation.of(context).run(partial(receive, key=key, path=path, meter=meter))


@app.command()
def cat(
    context: typer.Context,
    key: KeyArgument,
    offset: Annotated[int, typer.Option(metavar="BYTES", help="where to begin; negative: so far from the end")] = 0,
    length: Annotated[int | None, typer.Option(metavar="BYTES", help="how much at most")] = None,
) -> None:
    """Write an object, or a part of it, to standard output."""

    async def act(storage: Storage) -> None:
        async with Output() as output, storage.open_read(key, offset=offset, length=length) as reader:
            meter.expect(reader.size)
            async for chunk in reader:
                await output.write(chunk)
                meter.advance(len(chunk))

    with report.transfer(key, unless_on_terminal=sys.stdout) as meter:
        Invocation.of(context).run(act)


@app.command()
def ls(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="how the keys, or the sessions' ids, begin", show_default=False)
    ] = "",
    sessions: Annotated[bool, typer.Option("--sessions", help="list sessions, by id")] = False,
    as_json: JsonOption = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="with size and time; sessions: files and bytes")] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="list what is left out: names that are not keys, escaped")
    ] = False,
) -> None:
    """List objects, or sessions, in order of their names."""
    if foreign and (sessions or long):
        raise InvalidArgumentError("--foreign lists names alone: leave --sessions and --long out")

    require_storage(Invocation.of(context).config())

    async def objects(storage: Storage) -> AsyncIterator[str]:
        async for entry in storage.list(prefix):
            yield report.entry_json(entry) if as_json else report.entry_line(entry, long=long)

    async def ids(storage: Storage) -> AsyncIterator[str]:
        async for name in list_sessions(storage):
            if name.startswith(prefix):
                usage = await Session(storage, name).usage() if long else None
                yield report.session_json(name, usage) if as_json else report.session_line(name, usage)

    async def act(storage: Storage) -> None:
        await write_lines(
            ids(storage) if sessions else _foreign(storage, prefix, as_json=as_json) if foreign else objects(storage)
        )

    Invocation.of(context).run(act)


async def _foreign(storage: Storage, prefix: str, *, as_json: bool) -> AsyncIterator[str]:
    async for found in everything(storage, prefix):
        if isinstance(found, str):
            yield json.dumps({"foreign": found}) if as_json else found


@app.command()
def stat(context: typer.Context, key: KeyArgument, as_json: JsonOption = False) -> None:
    """Show what is known of an object."""
    info = Invocation.of(context).run(lambda storage: storage.head(key))
    say([report.info_json(key, info)] if as_json else report.info_lines(key, info))


@app.command()
def rm(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="keys; missing objects are fine")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="PREFIX", help="all objects whose keys begin so")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Remove objects, by key or all below a prefix."""
    if keys and prefix is not None:
        raise InvalidArgumentError("give keys or --prefix, not both")
    if prefix is None:
        if not keys:
            raise InvalidArgumentError("name the objects to remove, or give --prefix")
        Invocation.of(context).run(lambda storage: storage.delete(*keys))
        return
    if not prefix:
        raise InvalidArgumentError("an empty prefix means every object: remove them by their first segments")
    if not yes:
        _ask(f"Remove all objects whose keys begin with {show_key(prefix)}?")
    removed = Invocation.of(context).run(lambda storage: storage.delete_prefix(prefix))
    say(
        [
            f"removed: {removed}",
            *([f"left, for their names are not keys: {removed.skipped}"] if removed.skipped else []),
        ]
    )
    if removed.skipped:
        raise typer.Exit(report.FAILED)


def _ask(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidArgumentError("standard input is not a terminal, so nobody can be asked: pass --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise report.CommandError("nothing was removed")


@app.command()
def cp(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="the key to copy; -r: a prefix, or a storage's URL")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="the key of the copy; -r: another prefix, or URL")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="all objects below SOURCE, to below TARGET")
    ] = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = CONCURRENCY,
    as_json: JsonOption = False,
) -> None:
    """Copy an object inside the storage, over one that is there.

    With -r copy all below a prefix; an object at the target that differs is left alone then, and reported. With -r and
    two URLs, as migrate. The options below -r are for it only."""
    invocation = Invocation.of(context)
    if recursive:
        operations.copy_all(
            lambda: open_storage(invocation.config()),
            source,
            target,
            overwrite=overwrite,
            dry_run=dry_run,
            concurrency=concurrency,
            as_json=as_json,
        )
    elif overwrite or dry_run or as_json or concurrency != CONCURRENCY:
        raise InvalidArgumentError("--overwrite, --dry-run, --concurrency and --json are for cp -r")
    else:
        invocation.run(lambda storage: storage.copy(source, target))


app.command()(operations.migrate)
app.command()(operations.policy)
app.command()(doctor)
app.command("verify")(verify_all)
app.command("soak")(soak_it)


@app.command()
def check(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="any store: file:///path, memory: or s3://bucket/prefix; all that is tried there is removed",
        ),
    ],
) -> None:
    """Try every promise of the conformance kit on a store."""
    from ..testing import Result, run_all

    config = config_from_url(url)

    async def act() -> list[Result]:
        async with open_storage(config):
            pass  # what is wrong with the store as such is said once, and not by every check
        return await run_all(partial(make_driver, config), tell=lambda result: tell(result.name))

    with report.steps() as tell:
        results = run_on_loop(act())
    say(report.check_lines(results, report.place(config)))
    if any(result.error is not None for result in results):
        raise typer.Exit(report.FAILED)


@app.command()
def demo(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIRECTORY", help="what to store; else Python's library", exists=True, file_okay=False),
    ] = None,
    artifact_mib: Annotated[int, typer.Option(min=0, help="size of the streamed artifact")] = ARTIFACT_MIB,
    keep: Annotated[bool, typer.Option("--keep", help="leave the session in the storage")] = False,
) -> None:
    """Store real files, read them back, compare, and measure.

    A directory and a large artifact become a session, which is removed at the end."""
    from ._demo import run_demo

    invocation = Invocation.of(context)
    session_id = f"demo-{secrets.token_hex(4)}"
    config = invocation.config()
    source = Path(sysconfig.get_path("stdlib")) if directory is None else directory
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
    report.show_figures(figures)
    command = report.COMMAND + ("" if invocation.url is None else f" --storage {shlex.quote(invocation.url)}")
    say(report.demo_end(figures, session_id, config, command, keep=keep))
