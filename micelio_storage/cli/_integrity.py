"""The commands that doubt a storage: `verify` reads what is there, `soak` does everything and kills processes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Annotated

import typer

from .. import Config, Storage, open_storage
from ..driver import show_key
from ..sessions import verify_sessions
from ..testing.soak import MOST, PROCESSES, SESSIONS, TASKS, Report, soak
from ..transfer import CONCURRENCY, Finding, Tally, verify
from . import _report as report
from ._invocation import Invocation, require_storage, run_on_loop
from ._options import ConcurrencyOption, JsonOption, StorageOption, UrlArgument
from ._pipes import Output, encoded, say

# -- verify


def verify_all(
    context: typer.Context,
    url: UrlArgument = None,
    prefix: Annotated[str, typer.Option(metavar="PREFIX", help="only objects whose keys begin with it")] = "",
    concurrency: ConcurrencyOption = CONCURRENCY,
    strict: Annotated[bool, typer.Option("--strict", help="objects without a checksum are failures")] = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Read every object and compare it with the checksum that the storage keeps.

    Objects that are damaged or cannot be read are named; with --json every object is. With --strict, so are those that
    other programs wrote, which have no checksum. Snapshots that lack something, and logs of events with gaps, are named
    too, unless --prefix is given. Nothing is changed."""
    config = Invocation.of(context, storage, url).config()
    require_storage(config)
    with report.transfer("verifying") as meter:
        meter.expect(None)
        tally = run_on_loop(_verify(config, prefix, concurrency, meter, strict=strict, as_json=as_json))
    say([json.dumps(dataclasses.asdict(tally))] if as_json else [_tally_line(tally)])
    if not (tally.complete if strict else tally.well):
        raise typer.Exit(report.FAILED)


async def _verify(
    config: Config, prefix: str, concurrency: int, meter: report.Meter, *, strict: bool, as_json: bool
) -> Tally:
    """Write what is found as soon as it is; gives the numbers."""
    tally = Tally()
    async with (
        Output() as output,
        open_storage(config) as storage,
        aclosing(verify(storage, prefix, concurrency=concurrency, on_progress=meter.show, strict=strict)) as findings,
    ):
        async for finding in _all_findings(findings, storage, prefix):
            tally.add(finding)
            text = json.dumps(dataclasses.asdict(finding)) if as_json else _finding_line(finding)
            if text is not None:
                await output.write(encoded(text + "\n"))
    return tally


async def _all_findings(
    findings: AsyncGenerator[Finding, None], storage: Storage, prefix: str
) -> AsyncGenerator[Finding, None]:
    """Those of each object alone, and then (of a whole storage) of what belongs together."""
    async for finding in findings:
        yield finding
    if not prefix:
        async for finding in verify_sessions(storage):
            yield finding


def _finding_line(finding: Finding) -> str | None:
    if finding.reason is None:
        return None
    where = report.whereabouts(finding.key, escaped=finding.result == "foreign")
    return f"{finding.result:<8}  {where}: {' '.join(finding.reason.split())}"


def _tally_line(tally: Tally) -> str:
    parts = [f"{name} {getattr(tally, name):,}" for name in ("verified", "unverified", "damaged", "failed")]
    parts += [f"gone {tally.gone:,}"] if tally.gone else []
    parts += [f"foreign {tally.foreign:,}"] if tally.foreign else []
    return f"{', '.join(parts)} ({tally.bytes:,} bytes)"


# -- soak


def soak_it(
    context: typer.Context,
    url: UrlArgument = None,
    minutes: Annotated[float, typer.Option(min=0, metavar="N", help="how long, such as 0.5")] = 1.0,
    processes: Annotated[int, typer.Option(min=1, max=MOST, metavar="N", help="worker processes")] = PROCESSES,
    tasks: Annotated[int, typer.Option(min=1, max=MOST, metavar="N", help="tasks in each process")] = TASKS,
    sessions: Annotated[
        int, typer.Option(min=0, max=MOST, metavar="N", help="more tasks, on snapshots, events, collections")
    ] = SESSIONS,
    seed: Annotated[
        str | None, typer.Option(metavar="TEXT", help="repeats the choices of a run; default: a new one")
    ] = None,
    kills: Annotated[bool, typer.Option("--kills/--no-kills", help="kill processes now and then")] = True,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Stress a storage: random work from many processes, some of them killed, and nothing may be lost.

    All of it happens below a scratch prefix, and is removed in the end."""
    config = Invocation.of(context, storage, url).config()
    with report.steps() as show:

        async def tell(text: str) -> None:
            show(text)

        act = partial(soak, seconds=minutes * 60, processes=processes, tasks=tasks, sessions=sessions)
        act = partial(act, seed=seed, kills=kills, tell=tell)
        done = run_on_loop(act(config))
    say([_soak_json(done)] if as_json else _soak_lines(done, report.place(config)))
    if done.lost:
        raise typer.Exit(report.FAILED)


def _soak_json(done: Report) -> str:
    document = {field.name: getattr(done, field.name) for field in dataclasses.fields(done)}
    return json.dumps(document | {"losses": [dataclasses.asdict(loss) for loss in done.losses]})


def _soak_lines(done: Report, where: str) -> Iterator[str]:
    """Each loss, then the numbers."""
    for loss in done.losses:
        yield f"LOST  {loss.kind}: {show_key(loss.key)}: {' '.join(loss.text.split())}"
    if done.lost > len(done.losses):
        yield f"and {done.lost - len(done.losses):,} more"
    for name, count in sorted(done.operations.items()):
        yield f"{count:>11,}  {name}"
    total = sum(done.operations.values())
    yield f"{total:,} operations in {done.seconds:.1f} s by {done.processes} x {done.tasks} tasks on {where}"
    refused = ", ".join(f"{count:,} {name}" for name, count in sorted(done.refused.items()) if count) or "0"
    yield f"faults: {done.kills} kills, {done.cancelled:,} cancellations; refused: {refused}"
    ended = f"; {done.uploads} uploads of killed processes were ended" if done.uploads else ""
    if done.sessions:
        yield f"{done.sessions} sessions, {done.snapshots:,} snapshots and {done.events:,} events in the end"
    yield f"{done.objects:,} objects in the end, {done.lost} losses (seed {done.seed}){ended}"
