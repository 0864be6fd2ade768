"""What a session's log says, on standard output."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import typer

from .. import Session, Storage
from . import _report as report
from ._invocation import Invocation, require_storage
from ._options import JsonOption, SessionArgument, StorageOption
from ._pipes import Output, encoded


def events(
    context: typer.Context,
    session: SessionArgument,
    after: Annotated[int | None, typer.Option(metavar="N", help="only events behind number N")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with each event as it comes")] = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Print the events of a session, the oldest first, one a line."""
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def act(opened: Storage) -> None:
        log = Session(opened, session).events
        lines: AsyncIterator[str] = (
            report.event_json(event) if as_json else report.event_line(event)
            async for event in (log.tail(after=after) if follow else log.read(after=after))
        )
        async with Output() as output:
            async for line in lines:
                await output.write(encoded(line + "\n"))

    invocation.run(act)
