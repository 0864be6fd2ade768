"""The `doctor` command: an examination of an S3 storage, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from .. import ConfigError, S3Config
from . import _report as report
from ._invocation import Invocation, run_on_loop
from ._options import JsonOption, StorageOption
from ._pipes import Output, encoded

if TYPE_CHECKING:
    from ..drivers.s3.doctor import Finding

HOURS = 24.0

_WORDS = {"ok": "ok", "note": "note", "warning": "warn", "failed": "FAIL", "unknown": "unknown"}


def doctor(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="s3://bucket/prefix; default: --storage, else the environment's"),
    ] = None,
    abort: Annotated[bool, typer.Option("--abort", help="abort unfinished uploads that are older")] = False,
    older_than: Annotated[
        float, typer.Option(min=0, max=24 * 365 * 100, metavar="HOURS", help="age of uploads that count as forgotten")
    ] = HOURS,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Examine an S3 storage: what works, what does not, and what to do about it.

    It makes scratch keys below the prefix and removes them. Without --abort it touches nothing else."""
    config = Invocation.of(context, storage, url).config()
    if not isinstance(config, S3Config):
        raise ConfigError("doctor examines S3 storages: give s3://bucket/prefix (`check` tests any storage)")
    from ..drivers.s3.doctor import diagnose  # here, for it is an extra

    findings = diagnose(config, abort=abort, older_than=timedelta(hours=older_than))
    if not run_on_loop(_write(findings, as_json=as_json)):
        raise typer.Exit(report.FAILED)


async def _write(findings: AsyncGenerator[Finding, None], *, as_json: bool) -> bool:
    """Write each finding as soon as it is there; gives whether nothing failed."""
    well = True
    async with Output() as output, aclosing(findings):
        async for finding in findings:
            well = well and finding.status != "failed"
            lines = [finding_json(finding)] if as_json else finding_lines(finding)
            await output.write(encoded("".join(f"{line}\n" for line in lines)))
    return well


def finding_lines(finding: Finding) -> Iterator[str]:
    yield f"{_WORDS[finding.status]:<7}  {finding.check}: {finding.text}"
    if finding.advice:
        yield f"{'':<9}{finding.advice}"


def finding_json(finding: Finding) -> str:
    return json.dumps(dataclasses.asdict(finding))
