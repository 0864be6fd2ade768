"""The commands for single objects, and what lists them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .. import InvalidArgumentError, Key, Storage
from ..sessions import Session, list_sessions
from ..transfer import everything
from . import _report as report
from ._directories import get_directory, put_directory
from ._invocation import Invocation, require_storage
from ._options import IfAbsentOption, JsonOption, KeyArgument, RecursiveOption, StorageOption, parse_pairs
from ._pipes import Output, encoded, say, write_lines
from ._transfer import receive, send

HOUR = 3600  # seconds


class Method(StrEnum):
    """What a signed URL allows."""

    GET = "GET"
    PUT = "PUT"


def put(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="a file, or - for standard input")],
    key: KeyArgument,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="such as text/plain")] = None,
    if_absent: IfAbsentOption = False,
    if_match: Annotated[
        str | None, typer.Option(metavar="ETAG", help="fail unless the object that is there has this ETag")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="may be given several times")] = None,
    recursive: RecursiveOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Store a file, or standard input, under a key: all of it or nothing. Prints the new ETag.

    With -r, store what is in a directory below a prefix, as `sync` does."""
    if recursive:
        if content_type or if_absent or if_match or metadata:
            raise InvalidArgumentError("-r stores many objects: leave out the options for one")
        return put_directory(Invocation.of(context, storage), source, key, as_json=as_json)
    pairs = parse_pairs("--metadata", metadata or [])
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
        info = Invocation.of(context, storage).run(store)
    say([report.info_json(key, info) if as_json else info.etag])
    return 0


def get(
    context: typer.Context,
    key: KeyArgument,
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="a file or directory; default: the last part of the key")
    ] = None,
    recursive: RecursiveOption = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> int:
    """Write an object to a file: all of it or nothing.

    With -r, write what is below a prefix to a directory, as `sync` does."""
    if recursive:
        return get_directory(Invocation.of(context, storage), key, str(target or "."), as_json=as_json)
    name = Key.parse(key).name
    if target == Path("-"):
        raise InvalidArgumentError("use `cat` to write an object to standard output")
    path = Path(name) if target is None else target / name if target.is_dir() else target
    with report.transfer(key) as meter:
        size = Invocation.of(context, storage).run(partial(receive, key=key, path=path, meter=meter))
    if as_json:
        say([report.file_json(key, str(path), size)])
    return 0


def cat(
    context: typer.Context,
    key: KeyArgument,
    offset: Annotated[int, typer.Option(metavar="BYTES", help="where to start; negative: from the end")] = 0,
    length: Annotated[int | None, typer.Option(metavar="BYTES", help="at most so many")] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Write an object, or a part of it, to standard output.

    With --json each line has some of the bytes in Base64, and their offset from the first one."""

    async def act(opened: Storage) -> None:
        written = 0
        async with Output() as output, opened.open_read(key, offset=offset, length=length) as reader:
            meter.expect(reader.size)
            async for chunk in reader:
                await output.write(encoded(report.chunk_json(key, written, chunk) + "\n") if as_json else chunk)
                written += len(chunk)
                meter.advance(len(chunk))

    with report.transfer(key, unless_on_terminal=sys.stdout) as meter:
        Invocation.of(context, storage).run(act)


def ls(
    context: typer.Context,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="what keys (or session ids) begin with", show_default=False)
    ] = "",
    sessions: Annotated[bool, typer.Option("--sessions", help="list session ids")] = False,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="with size and time; of sessions, files and bytes")
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="list what is left out: names that are not keys, escaped")
    ] = False,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """List objects or sessions, in the order of their names."""
    if foreign and (sessions or long):
        raise InvalidArgumentError("--foreign lists names alone: leave --sessions and --long out")
    invocation = Invocation.of(context, storage)
    require_storage(invocation.config())

    async def objects(opened: Storage) -> AsyncIterator[str]:
        async for entry in opened.list(prefix):
            yield report.entry_json(entry) if as_json else report.entry_line(entry, long=long)

    async def ids(opened: Storage) -> AsyncIterator[str]:
        async for name in list_sessions(opened):
            if name.startswith(prefix):
                usage = await Session(opened, name).usage() if long else None
                yield report.session_json(name, usage) if as_json else report.session_line(name, usage)

    async def act(opened: Storage) -> None:
        await write_lines(
            ids(opened) if sessions else _foreign(opened, prefix, as_json=as_json) if foreign else objects(opened)
        )

    invocation.run(act)


async def _foreign(storage: Storage, prefix: str, *, as_json: bool) -> AsyncIterator[str]:
    async for found in everything(storage, prefix):
        if isinstance(found, str):
            yield json.dumps({"foreign": found}) if as_json else found


def stat(context: typer.Context, key: KeyArgument, as_json: JsonOption = False, storage: StorageOption = None) -> None:
    """Show what is known about an object: size, ETag, time, content type, metadata."""
    info = Invocation.of(context, storage).run(lambda opened: opened.head(key))
    say([report.info_json(key, info)] if as_json else report.info_lines(key, info))


def url(
    context: typer.Context,
    key: KeyArgument,
    expires: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="how long it works, at most a week")] = HOUR,
    method: Annotated[Method, typer.Option(metavar="GET|PUT", help="to fetch or to store the object")] = Method.GET,
    content_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="of the answer to a GET; what a PUT must have")
    ] = None,
    content_disposition: Annotated[
        str | None, typer.Option(metavar="TEXT", help="of the answer to a GET, such as attachment")
    ] = None,
    content_length: Annotated[int | None, typer.Option(metavar="BYTES", help="that a PUT must have")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="of what a PUT may store")] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="a PUT may create the object, once")] = False,
    round_to: Annotated[
        int | None, typer.Option(min=1, metavar="SECONDS", help="same URL for so long, so that caches keep the answer")
    ] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Print a signed URL that lets anybody who has it fetch (or store) one object.

    The store verifies it on S3. A local storage has signed URLs where STORAGE_PUBLIC_URL and STORAGE_URL_KEYS are set,
    and your application serves them; without, this says so."""
    sign = partial(
        Storage.url,
        key=key,
        expires=expires,
        method=method.value,
        content_type=content_type,
        content_disposition=content_disposition,
        content_length=content_length,
        sha256=None if sha256 is None else _parse_digest(sha256),
        if_absent=if_absent,
        round_to=round_to,
    )
    signed = Invocation.of(context, storage).run(sign)
    if as_json:
        until = None if signed.until is None else signed.until.isoformat(timespec="seconds")
        told = {"key": key, "url": signed, "method": method, "expires": expires, "until": until}
        say([json.dumps(told | {"headers": dict(signed.headers)})])
        return
    say([signed])
    report.print_errors([f"send with it: {name}: {value}" for name, value in signed.headers.items()])


def _parse_digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidArgumentError(f"--sha256 {text!a} is not in hexadecimal digits, as sha256sum gives them") from None
