"""The commands that let sessions go, and keep them from going: `sweep`, `touch`, `hold` and `release`; and `collect`,
which frees what their snapshots took."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, TypeAlias

import typer

from .. import InvalidArgumentError, Session, Storage
from ..sessions import CollectOutcome, CollectReport, Retention, SweepOutcome, SweepReport
from ..sessions import collect as collect_all
from ..sessions import sweep as sweep_all
from ..transfer import CONCURRENCY
from . import _report as report
from ._invocation import Invocation, require_storage
from ._options import ConcurrencyOption, DryRunOption, JsonOption, SessionArgument, StorageOption
from ._pipes import Output, encoded, say

ReasonArgument: TypeAlias = Annotated[str, typer.Argument(metavar="REASON", help="why, such as 'case 4711'")]
_NUMBERS = ("kept", "held", "expiring", "revived", "deleted", "failed")


def sweep(
    context: typer.Context,
    idle: Annotated[
        float | None, typer.Option(metavar="DAYS", help="delete sessions that nobody wrote to for so long")
    ] = None,
    absolute: Annotated[
        float | None, typer.Option(metavar="DAYS", help="delete sessions that are so old, however much they are used")
    ] = None,
    grace: Annotated[float, typer.Option(metavar="DAYS", help="how long a session is marked before it goes")] = 1.0,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = CONCURRENCY,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Let sessions go that nobody uses any more: run it once a day, anywhere.

    A session that is due is marked, and deleted by a later run if nobody has used it meanwhile. Held ones stay."""
    retention = Retention(
        idle=None if idle is None else _days("--idle", idle),
        absolute=None if absolute is None else _days("--absolute", absolute),
        grace=_days("--grace", grace),
    )
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def act(opened: Storage) -> SweepReport:
        async with Output() as output:

            async def write(outcome: SweepOutcome) -> None:
                text = json.dumps(dataclasses.asdict(outcome)) if as_json else _line(outcome, dry_run=dry_run)
                if text is not None:
                    await output.write(encoded(text + "\n"))

            run = partial(sweep_all, dry_run=dry_run, concurrency=concurrency, on_outcome=write)
            return await run(opened, retention)

    done = invocation.run(act)
    say([_json(done)] if as_json else _lines(done))
    return report.FAILED if done.failed else 0


def _days(name: str, days: float) -> timedelta:
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise InvalidArgumentError(f"{name} cannot be {days:g} days") from error


def _line(outcome: SweepOutcome, *, dry_run: bool) -> str | None:
    """What became of a session, unless it stays as it was."""
    if outcome.result in ("kept", "held"):
        return None
    would = "would be " if dry_run and outcome.result != "failed" else ""
    amount = report.amount(outcome.objects, outcome.bytes)
    return f"{would}{outcome.result}: {outcome.session} ({' '.join((outcome.reason or amount).split())})"


def _json(done: SweepReport) -> str:
    numbers = {name: getattr(done, name) for name in (*_NUMBERS, "objects", "bytes")}
    return json.dumps(numbers | {"seconds": round(done.seconds, 3), "dry_run": done.dry_run})


def _lines(done: SweepReport) -> Iterator[str]:
    would = "would be " if done.dry_run else ""
    numbers = ", ".join(f"{name} {getattr(done, name):,}" for name in _NUMBERS)
    yield f"{numbers}; {would}removed: {report.amount(done.objects, done.bytes)} in {done.seconds:.1f} s"


def touch(
    context: typer.Context, session: SessionArgument, as_json: JsonOption = False, storage: StorageOption = None
) -> None:
    """Say that a session is in use, so that `sweep` keeps it."""
    _on_session(context, storage, session, Session.touch, as_json=as_json)


def hold(
    context: typer.Context,
    session: SessionArgument,
    reason: ReasonArgument,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Let nobody delete a session before it is released for the same reason."""
    _on_session(context, storage, session, partial(Session.hold, reason=reason), as_json=as_json)


def release(
    context: typer.Context,
    session: SessionArgument,
    reason: ReasonArgument,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Take back the hold on a session for this reason. Others stand."""
    _on_session(context, storage, session, partial(Session.release, reason=reason), as_json=as_json)


def _on_session(
    context: typer.Context,
    storage: str | None,
    name: str,
    change: Callable[[Session], Awaitable[object]],
    *,
    as_json: bool,
) -> None:
    """Change what is kept of the session; with `--json`, say by what it is held."""
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def act(opened: Storage) -> Sequence[str]:
        session = Session(opened, name)
        await change(session)
        return await session.holds()

    holds = invocation.run(act)
    if as_json:
        say([json.dumps({"session": name, "holds": list(holds)})])


# -- collect

_OF_FAMILIES = ("clean", "collected", "waiting", "failed")


def collect(
    context: typer.Context,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="how long to wait for snapshots that are being made")
    ] = 60.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Remove what no snapshot needs any more: run it now and then, anywhere.

    It never removes what a snapshot needs, whatever runs or dies beside it. One that is still being made is waited
    for; if that takes too long, the next run goes on."""
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def act(opened: Storage) -> CollectReport:
        async with Output() as output:

            async def write(outcome: CollectOutcome) -> None:
                text = json.dumps(dataclasses.asdict(outcome)) if as_json else _family_line(outcome)
                if text is not None:
                    await output.write(encoded(text + "\n"))

            return await collect_all(opened, wait=wait, dry_run=dry_run, on_outcome=write)

    done = invocation.run(act)
    say([_collect_json(done)] if as_json else [_collect_line(done)])
    return report.FAILED if done.failed else 0


def _family_line(outcome: CollectOutcome) -> str | None:
    """Why a family could not be collected."""
    if outcome.reason is None:
        return None
    return f"{outcome.result}: {outcome.family} ({' '.join(outcome.reason.split())})"


def _collect_json(done: CollectReport) -> str:
    numbers = {name: getattr(done, name) for name in (*_OF_FAMILIES, "objects", "bytes", "pins")}
    return json.dumps(numbers | {"seconds": round(done.seconds, 3), "dry_run": done.dry_run})


def _collect_line(done: CollectReport) -> str:
    would = "would be " if done.dry_run else ""
    numbers = ", ".join(f"{name} {getattr(done, name):,}" for name in _OF_FAMILIES)
    given_up = f"; {done.pins:,} unfinished snapshots given up" if done.pins else ""
    return f"{numbers}; {would}removed: {report.amount(done.objects, done.bytes)} in {done.seconds:.1f} s{given_up}"
