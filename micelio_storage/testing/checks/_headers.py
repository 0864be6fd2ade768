"""What a web server says with an object: headers, and its content type, by the extension where nothing was said."""

from __future__ import annotations

from typing import Any

from ..._storage import Storage
from ...driver import (
    DEFAULT_CONTENT_TYPE,
    HTTP_HEADERS,
    InvalidArgumentError,
    NotSupportedError,
    ObjectInfo,
    PreconditionFailedError,
)
from .._expect import check, equal, names, raises

GIVEN = {
    "cache_control": "private, max-age=60",
    "content_disposition": 'attachment; filename="a b.txt"',
    "content_encoding": "identity",
    "content_language": "de, en-GB",
}
BY_EXTENSION = {
    "a.md": "text/markdown",
    "a.HTML": "text/html",
    "a.tar.gz": "application/gzip",
    "d.json/a": DEFAULT_CONTENT_TYPE,
    "a.json": "application/json",
    "a.unheard-of": DEFAULT_CONTENT_TYPE,
    "d/.md": DEFAULT_CONTENT_TYPE,
}
OTHER = '"another"'


def headers_of(info: ObjectInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in HTTP_HEADERS}


@check
async def headers_come_back_as_they_were(storage: Storage, prefix: str) -> None:
    """A put and a stream keep the HTTP headers, and an object without them has none."""
    put = await storage.put(prefix + "a.txt", b"1", **GIVEN)  # type: ignore[arg-type]  # these names are all strings
    equal(headers_of(put), GIVEN, "what a put returned")
    async with storage.open_write(prefix + "b.txt", **GIVEN) as writer:  # type: ignore[arg-type]  # as above
        await writer.write(b"2")
    for name in ("a.txt", "b.txt"):
        equal(headers_of(await storage.head(prefix + name)), GIVEN, f"head of {name}")
        async with storage.open_read(prefix + name) as reader:
            equal(headers_of(reader.info), GIVEN, f"a reader of {name}")
    await storage.put(prefix + "a.txt", b"3")
    equal(set(headers_of(await storage.head(prefix + "a.txt")).values()), {None}, "the headers of its successor")


@check
async def the_extension_says_the_content_type(storage: Storage, prefix: str) -> None:
    """Where no content type is given it is that of the extension, in what a put returns as in what head says."""
    for name, wanted in BY_EXTENSION.items():
        equal((await storage.put(prefix + name, b"1")).content_type, wanted, f"a put of {name}")
        equal((await storage.head(prefix + name)).content_type, wanted, f"head of {name}")
        async with storage.open_write(prefix + "s/" + name) as writer:
            await writer.write(b"2")
        equal((await storage.head(prefix + "s/" + name)).content_type, wanted, f"a stream of {name}")


@check
async def a_content_type_that_was_given_is_kept_whatever_the_extension(storage: Storage, prefix: str) -> None:
    """No store guesses: neither for "application/octet-stream", nor for a copy to a key with another extension."""
    for given in (DEFAULT_CONTENT_TYPE, "text/x-other; charset=utf-8"):
        equal((await storage.put(prefix + "a.html", b"1", content_type=given)).content_type, given, "a put's answer")
        equal((await storage.head(prefix + "a.html")).content_type, given, "head of what was put")
        await storage.put(prefix + "plain", b"1", content_type=given)
        for source in ("plain", "a.html"):
            await storage.copy(prefix + source, prefix + "b.json")
            equal((await storage.head(prefix + "b.json")).content_type, given, f"head of a copy of {source}")
            equal((await storage.head(prefix + "b.json")).metadata, {}, "the metadata of the copy")


@check
async def a_copy_keeps_headers_and_takes_those_given(storage: Storage, prefix: str) -> None:
    """Of a copy, what is given is new, and all else is the source's."""
    await storage.put(prefix + "a.txt", b"1", **GIVEN)  # type: ignore[arg-type]  # as above
    equal(headers_of(await storage.copy(prefix + "a.txt", prefix + "b")), GIVEN, "a copy's answer")
    equal(headers_of(await storage.head(prefix + "b")), GIVEN, "head of a copy")
    equal((await storage.head(prefix + "b")).content_type, "text/plain", "the copy's content type")
    await storage.copy(prefix + "b", prefix + "c", cache_control="no-store", content_type="text/x-new")
    info = await storage.head(prefix + "c")
    equal(
        (headers_of(info), info.content_type), (GIVEN | {"cache_control": "no-store"}, "text/x-new"), "a changed copy"
    )


@check
async def an_update_keeps_content_type_and_headers(storage: Storage, prefix: str) -> None:
    """What is rewritten says the same of itself, but for a content type that is given; what is new says what its
    extension says."""
    capabilities = storage.capabilities
    if not (capabilities.if_match and capabilities.if_absent):
        with raises(NotSupportedError, "an update"):
            await storage.update(prefix + "a.txt", lambda _: b"1")
        return
    await storage.put(prefix + "a.txt", b"1", content_type="text/x-a", **GIVEN)  # type: ignore[arg-type]  # as above
    await storage.update(prefix + "a.txt", lambda _: b"2")
    info = await storage.head(prefix + "a.txt")
    equal((info.content_type, headers_of(info)), ("text/x-a", GIVEN), "what was updated")
    await storage.update(prefix + "a.txt", lambda _: b"3", content_type="text/x-b")
    equal((await storage.head(prefix + "a.txt")).content_type, "text/x-b", "the content type that was given")
    await storage.update(prefix + "new.json", lambda _: b"{}")
    equal((await storage.head(prefix + "new.json")).content_type, "application/json", "that of a new object")


@check
async def only_the_version_that_is_meant_is_copied(storage: Storage, prefix: str) -> None:
    """With `source_match`, an object that has another ETag is not copied, and nothing is changed."""
    etag = (await storage.put(prefix + "a", b"1")).etag
    for call in (storage.copy, storage.move):
        with raises(PreconditionFailedError, f"{call.__name__} of another version"):
            await call(prefix + "a", prefix + "b", source_match=OTHER)
    equal(await names(storage, prefix), ["a"], "what is there after refused copies")
    await storage.copy(prefix + "a", prefix + "b", source_match=etag)
    equal(await storage.get(prefix + "b"), b"1", "the copy")


@check
async def headers_that_cannot_be_sent_are_refused(storage: Storage, prefix: str) -> None:
    """A header with a line break, beyond ASCII or too long is refused before anything is stored."""
    for name in HTTP_HEADERS:
        for value in ("", "a\r\nb: c", "\u00e4", " a", "x" * 1025):
            with raises(InvalidArgumentError, f"{name} {value[:20]!a}"):
                await storage.put(prefix + "a", b"1", **{name: value})  # type: ignore[arg-type]  # as above
        with raises(TypeError, f"{name} as bytes"):
            await storage.put(prefix + "a", b"1", **{name: b"x"})  # type: ignore[arg-type]  # as above
    with raises(TypeError, "a header that there is not"):
        await storage.put(prefix + "a", b"1", expires="now")  # type: ignore[call-arg]  # that is the point
    equal(await names(storage, prefix), [], "what is there after refused puts")
