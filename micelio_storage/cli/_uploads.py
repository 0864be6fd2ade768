"""The uploads that web servers keep until they are whole: those that there are, and those that have expired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer

from .. import InvalidArgumentError, Storage
from ..http import UPLOADS, PendingUpload, SweptUploads, list_uploads, sweep_uploads
from . import _report as report
from ._invocation import Invocation, require_storage
from ._options import DryRunOption, JsonOption, StorageOption
from ._pipes import say, write_lines


def uploads(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Option(metavar="PREFIX", help="what the application was given as `uploads`")
    ] = UPLOADS,
    sweep: Annotated[bool, typer.Option("--sweep", help="remove those that have expired")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """List the uploads that web servers keep until they are whole, or remove those that have expired."""
    if dry_run and not sweep:
        raise InvalidArgumentError("--dry-run says what --sweep would do: give both")
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())
    if not sweep:
        invocation.run(lambda opened: write_lines(_lines(opened, prefix, as_json=as_json)))
        return

    async def act(opened: Storage) -> tuple[SweptUploads, list[PendingUpload]]:
        removed: list[PendingUpload] = []
        return await sweep_uploads(opened, prefix=prefix, dry_run=dry_run, on_removed=removed.append), removed

    swept, removed = invocation.run(act)
    say(report.upload_json(each) if as_json else report.upload_line(each) for each in removed)
    say([report.swept_json(swept, dry_run=dry_run) if as_json else report.swept_line(swept, dry_run=dry_run)])


async def _lines(storage: Storage, prefix: str, *, as_json: bool) -> AsyncIterator[str]:
    now = datetime.now(UTC)
    async with aclosing(list_uploads(storage, prefix=prefix)) as found:
        async for each in found:
            yield report.upload_json(each) if as_json else report.upload_line(each, now)
