"""What an application hands in to be stored: bytes, or a stream of them, from whatever it is that gives them."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from ._types import BytesLike

READ_SIZE = 1 << 20  # bytes asked of an object with read(n) at a time: what a local chunk has (measured best)


@runtime_checkable
class AsyncReadable(Protocol):
    """Anything with `async read(n)`: Starlette's `UploadFile`, aiohttp's `StreamReader`, an aiofiles handle."""

    def read(self, size: int, /) -> Awaitable[bytes]:
        """At most `size` bytes; b"" only at the end."""
        ...


Data: TypeAlias = BytesLike | AsyncIterable[BytesLike] | AsyncReadable
"""What can be stored: bytes, or where they come from."""


Source: TypeAlias = bytes | memoryview | AsyncGenerator[BytesLike, None]


def as_bytes(data: object) -> bytes | memoryview:
    """The same bytes, flat and contiguous: as they are, or as a view without a copy where that can be."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise TypeError("str is not bytes: encode it first, as in text.encode()")
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # what is no buffer is refused here
    except TypeError:
        raise TypeError(f"expected bytes, bytearray or memoryview, not {type(data).__name__}") from None
    return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()


def as_source(data: object) -> Source:
    """What `put` was given, as bytes or as a stream of them; a `TypeError` for anything else, before any I/O."""
    if isinstance(data, (bytes, bytearray, memoryview, str)):
        return as_bytes(data)
    read = getattr(data, "read", None)
    if isinstance(data, io.BytesIO):
        raise TypeError("a BytesIO holds its bytes already: pass data.getvalue()")
    if isinstance(data, io.StringIO):
        raise TypeError("a StringIO holds text: pass data.getvalue().encode()")
    if isinstance(data, io.IOBase):
        raise TypeError("reading this file would block the event loop: use upload_file(), or open it with aiofiles")
    if callable(read) and not isinstance(data, AsyncGenerator):
        return _read_chunks(read)
    if isinstance(data, AsyncIterable):
        return _iterate_chunks(data)
    try:
        return as_bytes(data)
    except TypeError:
        raise TypeError(
            "data must be bytes, bytearray, memoryview, an async iterable of them, or an object with async read(n), "
            f"not {type(data).__name__}"
        ) from None


async def _read_chunks(read: Callable[[int], object]) -> AsyncGenerator[BytesLike, None]:
    while True:
        answer = read(READ_SIZE)
        if not inspect.isawaitable(answer):
            raise TypeError("the source's read(n) is not async: it would block the event loop")
        if not (chunk := as_bytes(await answer)):
            return
        yield chunk


async def _iterate_chunks(source: AsyncIterable[BytesLike]) -> AsyncGenerator[BytesLike, None]:
    try:
        async for chunk in source:
            yield chunk
    finally:
        close = getattr(source, "aclose", None)  # an async generator's: it may hold something
        if close is not None:
            await close()
