"""The command: which storage, on which address, and the link that lets a browser in."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Annotated, TypeAlias

import typer

from ... import InvalidArgumentError, Storage, open_storage
from .. import _report as report
from .._invocation import Invocation, require_storage, run_on_loop
from .._options import JsonOption, StorageOption, UrlArgument
from .._pipes import Output, encoded
from ._gate import LOOPBACK, Gate
from ._site import Site

Serve: TypeAlias = Callable[[Site, socket.socket], Awaitable[None]]

BACKLOG = 128  # connections that may wait to be accepted
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # what people give; it is not what is listened on unless they do


def serve(
    context: typer.Context,
    url: UrlArgument = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="where to listen; default: this machine alone")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 is any that is free")] = 0,
    read_only: Annotated[bool, typer.Option("--read-only", help="look and download, change nothing")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a name by which browsers find this machine")
    ] = None,
    as_json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Show sessions and files on a web page: look, search, upload, download, delete.

    It prints the link to open, which has a token in it that nobody gets in without, and serves until Ctrl-C."""
    run = _server()
    config = Invocation.of(context, storage, url).config()
    require_storage(config)
    place = report.place(config)
    with _listen(host, port) as listener:
        number = listener.getsockname()[1]
        gate = make_gate(host, number, allow_host or ())
        link = f"http://{_in_url(host)}:{number}/?token={gate.token}"
        told = {"url": link, "storage": place, "read_only": read_only}
        lines = [json.dumps(told)] if as_json else _introduction(link, place, host, read_only=read_only)
        opened = open_storage(config)
        site = Site(opened, gate, place=place, read_only=read_only)
        run_on_loop(_serve(opened, lines, lambda: run(site, listener)))


async def _serve(opened: Storage, lines: Sequence[str], run: Callable[[], Awaitable[None]]) -> None:
    async with opened:
        async with Output() as output:
            await output.write(encoded("".join(f"{line}\n" for line in lines)))
        await run()


def _introduction(link: str, place: str, host: str, *, read_only: bool) -> list[str]:
    lines = [f"{place}{' (read-only)' if read_only else ''} is at", f"  {link}", "Ctrl-C ends it."]
    if not _is_loopback(host):
        lines.append(
            "Others can reach this address: whoever has the link may "
            f"{'read' if read_only else 'read and change'} all of it, and nothing is encrypted on the way."
        )
    return lines


def _server() -> Serve:
    """What serves, which is an extra."""
    try:
        from ._server import serve_until_cancelled
    except ModuleNotFoundError as error:
        if error.name != "uvicorn":
            raise
        raise report.CommandError("serve needs uvicorn: pip install 'micelio_storage[web]'") from None
    return serve_until_cancelled


def _listen(host: str, port: int) -> socket.socket:
    """A socket on which connections are waited for already, so that the link is good when it is printed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidArgumentError(f"--host {host!a} is not an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _no_socket(error, host, port) from error
    return listener


def _no_socket(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return report.CommandError(f"port {port} is taken: give another one, or --port 0 for any that is free")
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidArgumentError(f"--host {host!a} is not an address of this machine")
    if error.errno in (errno.EACCES, errno.EPERM):
        return report.CommandError(f"port {port} is not for everybody: give one above 1023, or --port 0")
    return report.CommandError(f"cannot listen on {host!a}, port {port}: {error.strerror}")


def make_gate(host: str, port: int, allowed: Sequence[str]) -> Gate:
    """Who may come in: by the names of this machine, and by its addresses where others are to reach it."""
    names = LOOPBACK | {host.lower()} | {name.lower() for name in allowed}
    return Gate(names=names, any_address=not _is_loopback(host), port=port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _in_url(host: str) -> str:
    """The host as a URL has it; for all addresses, the one that is sure to be this machine's."""
    if host in EVERYWHERE:
        return "127.0.0.1" if host == EVERYWHERE[0] else "[::1]"
    return f"[{host}]" if ":" in host else host
