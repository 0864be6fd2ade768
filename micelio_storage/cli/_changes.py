"""The commands that remove, copy and move objects inside one storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from .. import InvalidArgumentError, NotFoundError, ObjectInfo, Storage, open_storage
from ..driver import show_key
from ..transfer import CONCURRENCY, everything
from . import _operations as operations
from . import _report as report
from ._invocation import Invocation, ask
from ._options import (
    ConcurrencyOption,
    DryRunOption,
    IfAbsentOption,
    JsonOption,
    OverwriteOption,
    StorageOption,
    YesOption,
)
from ._pipes import say, write_lines

# -- rm


@dataclass(slots=True)
class _Count:
    """What there is to remove; `skipped` has a name that is not a key."""

    objects: int = 0
    bytes: int = 0
    skipped: int = 0

    def add(self, size: int) -> None:
        self.objects += 1
        self.bytes += size


def rm(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="keys; missing objects are fine")] = None,
    prefix: Annotated[str | None, typer.Option(metavar="PREFIX", help="all objects whose keys begin with it")] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Remove objects, by key or by prefix.

    Before all objects with a prefix are removed, it counts them and asks."""
    invocation = Invocation.of(context, storage)
    if keys and prefix is not None:
        raise InvalidArgumentError("give keys or --prefix, not both")
    if not keys and prefix is None:
        raise InvalidArgumentError("name the objects to remove, or give --prefix")
    if prefix is not None and not prefix:
        raise InvalidArgumentError("an empty prefix means every object: remove them by their first segments")
    if dry_run:
        _show(invocation, keys or [], prefix, as_json=as_json)
    elif prefix is not None:
        _remove_all(invocation, prefix, yes=yes, as_json=as_json)
    elif keys:
        invocation.run(lambda opened: opened.delete(*keys))
        if as_json:
            say(report.removed_key_json(key) for key in keys)


def _show(invocation: Invocation, keys: list[str], prefix: str | None, *, as_json: bool) -> None:
    """What would be removed, and how much it is."""
    count = _Count()

    async def lines(opened: Storage) -> AsyncIterator[str]:
        found = _named(opened, keys) if prefix is None else _below(opened, prefix, count)
        async for key, size in found:
            count.add(size)
            yield report.would_remove_json(key, size) if as_json else key

    async def act(opened: Storage) -> None:
        await write_lines(lines(opened))

    invocation.run(act)
    say(
        [
            report.removed_json(count.objects, count.skipped, count.bytes)
            if as_json
            else f"would be removed: {report.amount(count.objects, count.bytes)}"
        ]
    )


async def _named(opened: Storage, keys: list[str]) -> AsyncIterator[tuple[str, int]]:
    for key in dict.fromkeys(keys):
        try:
            yield key, (await opened.head(key)).size
        except NotFoundError:
            continue


async def _below(opened: Storage, prefix: str, count: _Count) -> AsyncIterator[tuple[str, int]]:
    async with aclosing(everything(opened, prefix)) as entries:
        async for entry in entries:
            if isinstance(entry, str):
                count.skipped += 1
            else:
                yield entry.key, entry.size


async def _counted(opened: Storage, prefix: str) -> _Count:
    count = _Count()
    async for _, size in _below(opened, prefix, count):
        count.add(size)
    return count


def _remove_all(invocation: Invocation, prefix: str, *, yes: bool, as_json: bool) -> None:
    if not yes:
        ask(lambda: _question(invocation, prefix))
    removed = invocation.run(lambda opened: opened.delete_prefix(prefix))
    left = [f"left, because their names are not keys: {removed.skipped}"] if removed.skipped else []
    say([report.removed_json(removed, removed.skipped)] if as_json else [f"removed: {removed}", *left])
    if removed.skipped:
        raise typer.Exit(report.FAILED)


def _question(invocation: Invocation, prefix: str) -> str:
    count = invocation.run(partial(_counted, prefix=prefix))
    where = report.place(invocation.config())
    return (
        f"Remove {report.amount(count.objects, count.bytes)} with keys that begin with {show_key(prefix)} in {where}?"
    )


# -- cp, mv


def cp(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a key; with -r a prefix, or a storage's URL")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="the copy's key; with -r a prefix, or a URL")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="copy everything below SOURCE")] = False,
    if_absent: IfAbsentOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = CONCURRENCY,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Copy an object inside the storage, or with -r everything below a prefix.

    One object replaces what is at TARGET unless --if-absent is given. With -r, objects at TARGET that differ are
    reported and kept unless --overwrite is given; with two URLs, cp -r is migrate. --overwrite, --dry-run and
    --concurrency are for -r only."""
    invocation = Invocation.of(context, storage)
    if recursive:
        if if_absent:
            raise InvalidArgumentError(
                "--if-absent is for one object: cp -r replaces nothing unless you say --overwrite"
            )
        operations.copy_all(
            lambda: open_storage(invocation.config()),
            source,
            target,
            overwrite=overwrite,
            dry_run=dry_run,
            concurrency=concurrency,
            as_json=as_json,
        )
        return
    if overwrite or dry_run or concurrency != CONCURRENCY:
        raise InvalidArgumentError("--overwrite, --dry-run and --concurrency are for cp -r")
    info = invocation.run(lambda opened: opened.copy(source, target, if_absent=if_absent))
    _tell(target, info, as_json=as_json)


def mv(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="the key now")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="the key from then on")],
    if_absent: IfAbsentOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Move an object to another key inside the storage.

    It is stored at TARGET before it is removed from SOURCE, and replaces what is at TARGET unless --if-absent is given.
    """
    info = Invocation.of(context, storage).run(lambda opened: opened.move(source, target, if_absent=if_absent))
    _tell(target, info, as_json=as_json)


def _tell(key: str, info: ObjectInfo, *, as_json: bool) -> None:
    if as_json:
        say([report.info_json(key, info)])
