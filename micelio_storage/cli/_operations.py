"""The parts of the command for whoever runs a storage: moving everything elsewhere, and what a bucket is set up with.

Takes apart what was typed, and hands it on: how things are moved is in `_migrate`, what policies say in `_policy`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

from .. import (
    Config,
    ConfigError,
    InvalidArgumentError,
    LocalConfig,
    OnProgress,
    S3Config,
    Storage,
    config_from_url,
    open_storage,
)
from ..sessions import migrate_sessions
from ..transfer import CONCURRENCY, OnOutcome, Outcome, Report, copy_below
from . import _report as report
from ._invocation import require_storage, run_on_loop
from ._options import ConcurrencyOption, DryRunOption, JsonOption, OverwriteOption
from ._pipes import Output, encoded, say
from ._policy import NAME, Document, bucket_policy, iam_policy, lifecycle, partition_of

Act: TypeAlias = Callable[[OnOutcome, OnProgress], Coroutine[Any, Any, Report]]

# -- migrate, and cp --recursive


def migrate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="a storage's URL: file:///path or s3://bucket/prefix")
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="another storage's URL")],
    prefix: Annotated[str, typer.Option(metavar="PREFIX", help="only objects whose keys begin with it")] = "",
    overwrite: OverwriteOption = False,
    delete_source: Annotated[
        bool, typer.Option("--delete-source", help="remove each object once its copy has been verified")
    ] = False,
    dry_run: DryRunOption = False,
    concurrency: ConcurrencyOption = CONCURRENCY,
    as_json: JsonOption = False,
) -> None:
    """Copy all objects of one storage to another, and verify each copy.

    What is there already is skipped, so an interrupted run can simply be started again. Sessions arrive whole, also of
    a storage that is in use: a snapshot when all is there that it needs, an event log from its beginning on."""
    configs = config_from_url(source), config_from_url(target)
    check_apart(*configs)
    require_storage(configs[0])

    async def act(on_outcome: OnOutcome, on_progress: OnProgress) -> Report:
        async with open_storage(configs[0]) as one, open_storage(configs[1]) as other:
            return await migrate_sessions(
                one,
                other,
                prefix=prefix,
                concurrency=concurrency,
                overwrite=overwrite,
                delete_source=delete_source,
                dry_run=dry_run,
                on_outcome=on_outcome,
                on_progress=on_progress,
            )

    _watched(act, name="migrating", as_json=as_json)


def copy_all(
    make_storage: Callable[[], Storage],
    source: str,
    target: str,
    *,
    overwrite: bool,
    dry_run: bool,
    concurrency: int,
    as_json: bool,
) -> None:
    """All below one prefix of the storage to below another, or of one storage to another where both are URLs (no key
    has "//" in it)."""
    urls = [name for name in (source, target) if "://" in name]
    if len(urls) == 2:
        migrate(source, target, overwrite=overwrite, dry_run=dry_run, concurrency=concurrency, as_json=as_json)
        return
    if urls:
        raise InvalidArgumentError("give two prefixes of one storage, or the URLs of two storages")

    async def act(on_outcome: OnOutcome, on_progress: OnProgress) -> Report:
        async with make_storage() as storage:
            return await copy_below(
                storage,
                source,
                target,
                concurrency=concurrency,
                overwrite=overwrite,
                dry_run=dry_run,
                on_outcome=on_outcome,
                on_progress=on_progress,
            )

    _watched(act, name="copying", as_json=as_json)


def check_apart(source: Config, target: Config) -> None:
    """Raise unless none of the two storages holds the other: a copy would never end, and the original of an object
    could be deleted as if there were a copy."""
    if _is_inside(source, target) or _is_inside(target, source):
        raise InvalidArgumentError("one of the two storages is inside the other, or they are the same")


def _is_inside(inner: Config, outer: Config) -> bool:
    if isinstance(inner, LocalConfig) and isinstance(outer, LocalConfig):
        paths = [os.path.realpath(config.path or ".") for config in (inner, outer)]
        return os.path.commonpath(paths) == paths[1]
    if isinstance(inner, S3Config) and isinstance(outer, S3Config):
        stores = {(config.bucket, (config.endpoint or "").rstrip("/")) for config in (inner, outer)}
        one, other = (f"/{config.prefix.strip('/')}/".replace("//", "/") for config in (inner, outer))
        return len(stores) == 1 and one.startswith(other)
    return False


def _watched(act: Act, *, name: str, as_json: bool) -> None:
    """Do it on an event loop, show how it goes and say how it went."""
    with report.transfer(name) as meter:
        meter.expect(None)
        done = run_on_loop(_told(act, meter.show) if as_json else act(ignore, meter.show))
    say([report.migration_json(done)] if as_json else report.migration_lines(done))
    if not done.complete:
        raise typer.Exit(report.FAILED)


async def ignore(_: Outcome) -> None:
    """The report at the end says enough."""


async def _told(act: Act, on_progress: OnProgress) -> Report:
    async with Output() as output:
        return await act(_Lines(output).on_outcome, on_progress)


class _Lines:
    """A line for each outcome. Those that come while others are being written are written together."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._turn = asyncio.Lock()
        self._waiting = bytearray()

    async def on_outcome(self, outcome: Outcome) -> None:
        self._waiting += encoded(report.outcome_json(outcome) + "\n")
        async with self._turn:
            data, self._waiting = self._waiting, bytearray()
            if data:
                await self._output.write(data)


# -- policy


class Kind(StrEnum):
    """Which document."""

    iam = "iam"
    bucket = "bucket"
    lifecycle = "lifecycle"


def policy(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="iam|bucket|lifecycle",
            help="what a storage needs (iam), TLS for everybody (bucket), what expires (lifecycle)",
        ),
    ],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="s3://bucket/prefix, with region and sse_kms_key_id if it has them")
    ],
    days: Annotated[
        int | None,
        typer.Option(metavar="N", help="lifecycle: a net under `sweep`, N days after each object was written"),
    ] = None,
    sid: Annotated[str, typer.Option(metavar="NAME", help="what the names of statements and rules begin with")] = NAME,
    as_json: JsonOption = False,
) -> None:
    """Print a policy for a storage's bucket, as the JSON that AWS takes.

    It is JSON either way; --json puts it on one line. With --days, S3 removes each object of a session by its own age,
    and so takes apart sessions that are in use: let `sweep` end them, and give more days than it keeps any. Snapshots
    are never covered."""
    config = config_from_url(url)
    if not isinstance(config, S3Config):
        raise ConfigError("policies are for S3 buckets: give s3://bucket/prefix")
    if days is not None and kind is not Kind.lifecycle:
        raise InvalidArgumentError("--days is only for `policy lifecycle`")
    say([json.dumps(_document(kind, config, days, sid), indent=None if as_json else 2, ensure_ascii=False)])


def _document(kind: Kind, config: S3Config, days: int | None, name: str) -> Document:
    partition = partition_of(config.region)
    if kind is Kind.iam:
        return iam_policy(config.bucket, config.prefix, partition=partition, kms_key=config.sse_kms_key_id, name=name)
    if kind is Kind.bucket:
        return bucket_policy(config.bucket, partition=partition, name=name)
    return lifecycle(config.prefix, days=days, name=name)
