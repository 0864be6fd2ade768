"""What is used of aiohttp though it does not document it, looked at before it is relied on. (Of the SDK: in `sdk`.)

Where it is not what the short road expects, the SDK does all requests, in more time, and the log says so once. Without
what verifies certificates nothing can be sent with the care that this driver takes, so opening it says so.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from ....driver import ConfigError

logger = logging.getLogger("micelio_storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Names that something has to have, and parameters that functions of it have to take."""

    owner: Callable[[], object]  # makes or gives it
    names: tuple[str, ...] = ()
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lacking(self) -> list[str]:
        """What of it is not there, or is another."""
        owner = self.owner()
        kind = owner if isinstance(owner, type) else type(owner)
        found = [f"{kind.__name__}.{name}" for name in (*self.names, *self.takes) if not hasattr(owner, name)]
        for name, parameters in self.takes.items():
            if hasattr(owner, name):
                known = inspect.signature(getattr(owner, name)).parameters.keys()
                found += [f"{kind.__name__}.{name}({parameter}=)" for parameter in parameters if parameter not in known]
        return found


# What the short road is built on.
OF_AIOHTTP = (
    Surface(owner=lambda: aiohttp.BaseConnector, takes={"connect": ("traces", "timeout")}),
    Surface(owner=lambda: aiohttp.ClientRequest, takes={"__init__": ("method", "url", "loop")}),
    Surface(
        owner=lambda: ResponseHandler,
        names=("read", "start_timeout", "read_timeout", "connection_lost", "pause_writing", "resume_writing"),
        takes={
            "set_response_params": (
                *("skip_payload", "read_until_eof", "auto_decompress", "read_timeout", "read_bufsize"),
            )
        },
    ),
    Surface(owner=lambda: Connection, names=("protocol", "transport", "release", "close")),
    Surface(
        owner=lambda: aiohttp.StreamReader,
        names=(
            *("on_eof", "is_eof", "at_eof", "set_exception", "exception", "readany", "read_nowait", "feed_eof"),
            "total_bytes",
        ),
    ),
)
# What `_tls` reaches into, for nothing may be sent to whom nobody knows.
OF_TLS = (
    Surface(
        owner=lambda: aiohttp.TCPConnector,
        takes={
            "_create_proxy_connection": ("req", "traces", "timeout"),
            "_start_tls_connection": ("req",),
            "_wrap_create_connection": ("req",),
        },
    ),
)


def check(surfaces: Iterable[Surface], library: str) -> None:
    """Raise unless the library is one that this driver knows."""
    if lacking := lacking_of(surfaces):
        found = " with ".join([_versioned(name) for name in dict.fromkeys((library, "aiohttp"))])
        text = f"{found} is not one that works here, for it lacks {', '.join(lacking)}"
        raise ConfigError(f"{text}: pip install 'micelio_storage[s3]'")


def _versioned(library: str) -> str:
    from importlib.metadata import version  # takes 10 ms, and nobody else needs it

    return f"{library} {version(library)}"


@cache
def check_aiohttp() -> None:
    """Raise unless what is known of aiohttp's TLS is so. That it is, is found out once in a process."""
    check(OF_TLS, "aiohttp")


@cache
def short_road_fits() -> bool:
    """Whether aiohttp is as the short road needs it. If not, the log says so, once in a process."""
    lacking = lacking_of(OF_AIOHTTP)
    if lacking:
        text = "%s lacks %s: all requests to S3 go through the SDK, which takes longer"
        logger.warning(text, _versioned("aiohttp"), ", ".join(lacking))
    return not lacking


def lacking_of(surfaces: Iterable[Surface]) -> list[str]:
    """What of them is not there, or is another."""
    return [name for surface in surfaces for name in surface.lacking()]
