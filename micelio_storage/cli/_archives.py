"""Archives on the command line: objects out as a zip or tar, and the files of one in."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .. import InvalidArgumentError, NotFoundError, Storage
from ..transfer import Archive, Imported, import_archive
from ..transfer import archive as archive_of
from . import _report as report
from ._invocation import Invocation, require_storage
from ._options import DryRunOption, JsonOption, StorageOption
from ._pipes import Output, say


class Kind(StrEnum):
    """Which format."""

    zip = "zip"
    tar = "tar"


def archive(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="what keys begin with; '' is all of the storage")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="a file, or - for standard output")],
    kind: Annotated[
        Kind | None, typer.Option(metavar="zip|tar", help="the format; default: what TARGET ends with, else zip")
    ] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Write all objects below a prefix to one zip or tar: all of it or nothing.

    Names in it are the keys without all up to the last "/" of the prefix. Bytes are not compressed."""
    if as_json and target == "-":
        raise InvalidArgumentError("--json describes a file: leave it out where the archive is written to a pipe")
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())
    wanted = kind or (Kind.tar if target.endswith(".tar") else Kind.zip)

    async def act(opened: Storage) -> Archive:
        made = await archive_of(opened, prefix, wanted.value)
        if not made.count:
            raise NotFoundError(f"there is no object whose key begins with {prefix!a}")
        meter.expect(made.length)
        if target == "-":
            async with Output() as output, made.chunks() as chunks:
                async for chunk in chunks:
                    await output.write(chunk)
                    meter.advance(len(chunk))
        else:
            await made.save(target, on_progress=meter.show)
        return made

    with report.transfer(prefix, unless_on_terminal=sys.stdout if target == "-" else None) as meter:
        made = invocation.run(act)
    if as_json:
        told = {"path": target, "kind": made.kind, "files": made.count, "size": made.length}
        say([json.dumps({"prefix": prefix} | told)])


def unarchive(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="a zip, or a tar that is not compressed")],
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="what the new keys begin with; ends with /")] = "",
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="of names that do not say theirs: utf-8, cp437")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Store the files of a zip or tar, each as an object: all of them or none. Nothing is replaced.

    It is read twice, and stored only if nothing is wrong with it: no name that leads elsewhere, no link, no bomb."""

    async def act(opened: Storage) -> Imported:
        return await import_archive(opened, prefix, source, encoding=encoding, dry_run=dry_run, on_progress=meter.show)

    with report.transfer(source.name) as meter:
        done = Invocation.of(context, storage).run(act)
    if as_json:
        told = {"kind": done.kind, "files": done.count, "bytes": done.size, "dry_run": dry_run}
        say([json.dumps({"prefix": prefix} | told)])
    elif dry_run:
        say([f"would be stored: {done.count} objects ({done.size} bytes)"])
