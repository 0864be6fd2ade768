"""Directories in and out of a storage: `put -r`, `get -r` and `sync`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeAlias

import typer

from .. import InvalidArgumentError, open_storage
from ..transfer import CONCURRENCY, TreeReport, download_tree, upload_tree
from . import _report as report
from ._invocation import Invocation, require_storage, run_on_loop
from ._options import ConcurrencyOption, DryRunOption, JsonOption
from ._pipes import say

Move: TypeAlias = Callable[..., Awaitable[TreeReport]]


def put_directory(invocation: Invocation, directory: str, prefix: str, *, as_json: bool) -> int:
    """Store what is in the directory below the prefix."""
    with report.transfer(directory) as meter:
        move = partial(upload_tree, directory, on_progress=meter.show)
        done = invocation.run(lambda opened: move(opened.under(prefix)))
    return _tell(done, as_json=as_json)


def get_directory(invocation: Invocation, prefix: str, directory: str, *, as_json: bool) -> int:
    """Write what is below the prefix to the directory."""
    require_storage(invocation.config())
    with report.transfer(prefix) as meter:
        move = partial(download_tree, path=directory, on_progress=meter.show)
        done = invocation.run(lambda opened: move(opened.under(prefix)))
    return _tell(done, as_json=as_json)


def sync(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a directory, or a storage's URL")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="the other of the two")],
    prefix: Annotated[str | None, typer.Option(metavar="PREFIX", help="in the storage, only what is below it")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="as in .gitignore; may be given several times")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="remove what is at TARGET alone")] = False,
    by_content: Annotated[
        bool, typer.Option("--by-content", help="compare bytes, not times, where ETags are the MD5 of objects")
    ] = False,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = CONCURRENCY,
    as_json: JsonOption = False,
) -> int:
    """Make a storage as a directory is, or a directory as a storage is.

    Only files that differ are moved, and none through a link. Exits with 1 if some were left: links, devices, names
    that are not keys."""
    upwards, downwards = _is_url(target), _is_url(source)
    if upwards == downwards:
        raise InvalidArgumentError("name a directory and a storage's URL, such as file:///path or s3://bucket/prefix")
    invocation = Invocation.of(context, url=target if upwards else source)
    if downwards:
        require_storage(invocation.config())
    with report.transfer(source) as meter:
        move: Move = partial(upload_tree, source) if upwards else partial(download_tree, path=target)
        move = partial(move, ignore=ignore or (), delete=delete, by_content=by_content)
        move = partial(move, dry_run=dry_run, concurrency=concurrency, on_progress=meter.show)
        done = run_on_loop(_moved(invocation, prefix, move))
    return _tell(done, as_json=as_json)


async def _moved(invocation: Invocation, prefix: str | None, move: Move) -> TreeReport:
    async with open_storage(invocation.config()) as opened:
        return await move(opened if prefix is None else opened.under(prefix))


def _is_url(text: str) -> bool:
    return ("://" in text or text.startswith("memory:")) and not os.path.lexists(text)


def _tell(done: TreeReport, *, as_json: bool) -> int:
    say([report.tree_json(done)] if as_json else report.tree_lines(done))
    return 0 if done.complete else report.FAILED
