"""What a store, or a proxy before it, may say in headers and documents: it is taken, escaped, or a typed error; on the
short road and on the SDK's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from support.fault_proxy import Exchange, Reply, Rewrite
from support.s3_line import Line, line_to
from support.s3_servers import Server
from support.s3_storage import KIB

from micelio_storage import NotSupportedError, StorageError, UnavailableError

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

DATA = b"some bytes"
HUGE = b"9" * 5000
TEXTS = [
    b"", b"\xff\xfe", b"caf\xe9", "caf\u00e9 \U0001f600".encode(), b"\xed\xa0\x80", b"a\tb", b"x" * 4000, b"=?x?y?z?=",
    b"=?utf-8?b?////?=", b"=?utf-7?q?+2AA-?=", b"=?idna?q?a..b?=", b"=?unicode_escape?q?=5Cud800?=", b"=?hex?b?AA=3D?=",
    b"=?utf-8?b?AAA?=", b"=?undefined?q?a?=", b"text/plain; charset=\x80", b'"', b";", b",",
]  # fmt: skip
NUMBERS = [
    b"", b"-1", b"+1", b"1_0", b"1.0", b"0x10", b"ten", HUGE, b"9" * 30, b"\xd9\xa1", b"\xb2", b"1 2", b"NaN",
]  # fmt: skip
TIMES = [
    b"", b"0", b"tomorrow", HUGE, b"Mon, 00 Jan 0000 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -2359",
    b"Mon, 01 Jan 0001 00:00:00 +2359", b"Mon, 99 Foo 2020 99:99:99 GMT", b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", b"Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    b"Mon, 01 Jan 2020 00:00:00 -0000", b"2020-01-01T00:00:00Z", b"1577836800", b"-62135596801", b"1e300", b"nan",
]  # fmt: skip
ETAGS = [
    b"", b'""', b"W/", b'W/""', b"*", b"\xff", b'"\xe9"', b'"a"b"', b'"a b"', b"unquoted", b'"' + b"e" * 4000 + b'"',
    b'"a, "b"', b"'a'", b'W/"\xc3\xa9"', b'"%22"',
]  # fmt: skip
HEADERS: dict[str, list[bytes]] = {
    "etag": ETAGS,
    "last-modified": TIMES,
    "content-length": NUMBERS,
    "content-range": [b"bytes " + text + b"-9/10" for text in NUMBERS[::2]]
    + [b"bytes 0-9/" + text for text in NUMBERS],
    "x-amz-meta-a": TEXTS,
    "content-type": TEXTS,
    "x-amz-meta-micelio-content-type": TEXTS[:5],
    "x-amz-meta-micelio-write": TEXTS[:5],
    "x-amz-checksum-crc64nvme": TEXTS[:5],
    "x-amz-checksum-type": TEXTS[:5],
    "x-amz-version-id": TEXTS[:5],
    "content-encoding": TEXTS[:5],
    "content-disposition": TEXTS[:5],
    "date": TIMES[:6],
    "expires": TIMES[:6],
    "retry-after": NUMBERS,
}
STATUSES = {"retry-after": (503,), "content-range": (None, 416)}  # with which they are looked at


def with_header(name: str, value: bytes, status: int | None = None) -> Rewrite:
    """The server's answer, byte for byte, with another value of one header."""

    def change(reply: Reply) -> bytes:
        kept = [(key, text) for key, text in reply.headers if key.lower() != name]
        if name != "content-length":
            kept.append(
                ("content-length", next((t for k, t in reply.headers if k == "content-length"), str(len(reply.body))))
            )
        lines = [f"{key}: {text}".encode("latin-1") for key, text in kept]
        head = b"\r\n".join([f"HTTP/1.1 {status or reply.status} Told".encode(), *lines, name.encode() + b": " + value])
        return head + b"\r\nconnection: close\r\n\r\n" + reply.body

    return Rewrite(change)


def of_key(fault: Rewrite, methods: str = "GET HEAD PUT POST DELETE") -> Callable[[Exchange], Rewrite | None]:
    return lambda exchange: fault if "/f/a" in exchange.target and exchange.method in methods.split() else None


@pytest.fixture(params=["standard", "adaptive"], ids=["short road", "SDK's road"])
async def line(request: pytest.FixtureRequest, small_parts_server: Server) -> AsyncIterator[Line]:
    fields = {"part_size": 64 * KIB, "conditions": "all", "retries": 0, "retry_mode": request.param}
    async with line_to(small_parts_server, "f/", None, **fields) as line:
        await line.beside.put("f/a", DATA, metadata={"a": "1"})
        yield line


async def read_all(line: Line) -> bytes:
    async with line.storage.open_read("f/a", chunk_size=3) as reader:
        return b"".join([chunk async for chunk in reader])


async def listed(line: Line) -> list[Any]:
    async with aclosing(line.storage.list("f/")) as entries:
        return [entry async for entry in entries]


def calls(line: Line) -> dict[str, Callable[[], Awaitable[object]]]:
    storage = line.storage
    return {
        "head": lambda: storage.head("f/a"),
        "get": lambda: storage.get("f/a"),
        "a range": lambda: storage.get("f/a", offset=2, length=3),
        "read": lambda: read_all(line),
        "update": lambda: storage.update("f/a", lambda data: data),
        "copy": lambda: storage.copy("f/a", "f/b"),
    }


@pytest.mark.by_turns
@pytest.mark.case("F1", "F2", "F3")
@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_may_say_anything(line: Line, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micelio_storage._updating.VAIN_TRIES", 2)
    for value in HEADERS[name]:
        for status in STATUSES.get(name, (None,)):
            line.proxy.rule = of_key(with_header(name, value, status))
            for what, call in calls(line).items():
                try:
                    found = await call()
                except StorageError as error:
                    str(error).encode()
                except Exception as error:
                    raise AssertionError(f"{what} with {name}: {value[:80]!r}, {status}") from error
                else:
                    repr(found).encode()


LINE = b"<Key>f/a</Key><Size>10</Size><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
LAUGHS = b"<!DOCTYPE a [<!ENTITY a0 'ha'>" + b"".join(
    b"<!ENTITY a%d '%s'>" % (number, b"&a%d;" % (number - 1) * 10) for number in range(1, 12)
)


def page(line: bytes = LINE, *, before: bytes = b'<?xml version="1.0" encoding="UTF-8"?>') -> bytes:
    document = b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>%s</Contents></ListBucketResult>"
    return before + document % line


def pages_with(part: bytes, *texts: bytes) -> dict[str, bytes]:
    return {f"{part[:9]!r} is {text[:30]!r}": page(LINE.replace(part, text)) for text in texts}


ISO_TIMES = [b"", b"0", b"soon", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"-1", b"1e99", HUGE]
PAGES = {
    **pages_with(b"10", *(text for text in NUMBERS if text != b"\xb2")),
    **pages_with(b"2020-01-01T00:00:00.000Z", *ISO_TIMES),
    **pages_with(b"&quot;e&quot;", b"", b"W/&quot;e&quot;", "\u00e9".encode()),
    "no key": page(LINE.replace(b"Key>", b"Name>")),
    "no size": page(LINE.replace(b"Size>", b"Bytes>")),
    "no etag": page(LINE.replace(b"ETag>", b"Tag>")),
    "no time": page(re.sub(b"<Last.*dified>", b"", LINE)),
    "an entity": page(b"&nothing;"),
    "many entities": page(b"&a11;", before=LAUGHS + b"]>"),
    "an entity from a file": page(b"&x;", before=b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"),
    "a control character": page(LINE.replace(b"f/a", b"f/&#1;")),
    "half a surrogate": page(LINE.replace(b"f/a", b"f/&#xD800;")),
    "bad UTF-8": page(LINE.replace(b"f/a", b"f/\xff")),
    "no such encoding": page(before=b'<?xml version="1.0" encoding="none-such"?>'),
    "deep": page(b"<a>" * 100_000 + b"</a>" * 100_000),
    "cut short": page()[:-20],
    "nothing": b"",
    "JSON": b'{"Contents": []}',
    "another document": b"<Error><Code>Odd</Code></Error>",
    "two documents": page() + page(),
}


@pytest.mark.by_turns
@pytest.mark.case("F4")
async def test_a_listing_may_say_anything(line: Line) -> None:
    for name, body in PAGES.items():
        line.proxy.rule = lambda exchange, body=body: Reply(200, body) if "list-type" in exchange.target else None
        try:
            found = await listed(line)
        except UnavailableError as error:
            str(error).encode()
        except Exception as error:
            raise AssertionError(name) from error
        else:
            assert all(entry.size >= 0 and re.fullmatch(r'"[!#-~]+"', entry.etag) for entry in found), name
            "".join(map(repr, found)).encode()
            assert "root" not in repr(found), name


COPIED = b"<CopyObjectResult><ETag>%s</ETag><LastModified>%s</LastModified></CopyObjectResult>"
ANSWERS = {
    "x-amz-copy-source": [
        *(COPIED % (b"&quot;e&quot;", text) for text in (b"", b"soon", b"1e300", HUGE, b"0001-01-01T00:00:00+23:59")),
        *(COPIED % (text, b"2020-01-01T00:00:00Z") for text in (b"", b"W/&quot;e&quot;", "\u00e9".encode())),
        b"<CopyObjectResult/>", b"<a>" * 100_000, b"", b"\xff",
    ],
    "?uploads": [
        *(b"<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>" % text
          for text in (b"", "\u00e9 &amp;?/".encode(), b"a&#10;b", HUGE)),
        b"<InitiateMultipartUploadResult/>", b"<a/>", b"\xff",
    ],
    "?delete": [
        b"<DeleteResult><Error/></DeleteResult>", b"<DeleteResult><Error><Key>f/a</Key></Error></DeleteResult>",
        b"<DeleteResult><Error><Key>&#xe9;</Key><Code>\xc3\xa9</Code></Error></DeleteResult>", b"<a/>", b"\xff",
    ],
}  # fmt: skip
ERRORS = [
    *(b"", b"\xff", b"<Error/>", b"<Error><Code/></Error>", b"<html>", b"<a>" * 100_000, page()),
    b"<Error><Code>\xc3\xa9</Code><Message>\xe2\x80\xae</Message></Error>",
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>\xc3\xa9&#10;</Region></Error>",
    b"<Error><Code>InvalidRange</Code><ActualObjectSize>" + HUGE + b"</ActualObjectSize></Error>",
    LAUGHS + b"]><a>&a11;</a>",
]


async def large() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield bytes(64 * KIB)


@pytest.mark.by_turns
@pytest.mark.case("F4")
@pytest.mark.parametrize("where", ANSWERS)
async def test_the_document_of_an_answer_may_say_anything(line: Line, where: str) -> None:
    def is_here(exchange: Exchange) -> bool:
        return where in exchange.target or where in exchange.headers

    async def do() -> object:
        if where == "?uploads":
            return await line.storage.put("f/large", large())
        return await (line.storage.delete("f/a", "f/c") if where == "?delete" else line.storage.copy("f/a", "f/b"))

    for body in ANSWERS[where]:
        line.proxy.rule = lambda exchange, body=body: Reply(200, body) if is_here(exchange) else None
        try:
            await do()
        except* StorageError as errors:
            str(errors).encode()


@pytest.mark.by_turns
@pytest.mark.case("F4")
@pytest.mark.parametrize("status", [400, 403, 404, 412, 416, 418, 500, 503])
async def test_an_error_may_say_anything(line: Line, status: int) -> None:
    for body in ERRORS:
        line.proxy.rule = lambda exchange, body=body: Reply(status, body) if "/f/a" in exchange.target else None
        for what in ("get", "a range", "read", "copy"):
            with pytest.raises(StorageError) as caught:
                await calls(line)[what]()
            assert str(caught.value).isascii()


@pytest.mark.case("F1")
async def test_what_is_not_utf_8_in_a_header_is_latin_1(line: Line) -> None:
    line.proxy.rule = of_key(with_header("x-amz-meta-a", b"caf\xe9"), "HEAD GET")
    assert (await line.storage.head("f/a")).metadata == {"a": "caf\u00e9"}
    assert (await line.storage.get_with_info("f/a"))[1].metadata == {"a": "caf\u00e9"}
    await line.storage.update("f/a", lambda _: b"new")
    line.proxy.rule = lambda exchange: None
    assert (await line.storage.head("f/a")).metadata == {"a": "caf\u00e9"}
    line.proxy.rule = of_key(with_header("content-type", b"text/plain; x=\xe9"), "HEAD GET")
    assert (await line.storage.head("f/a")).content_type == "text/plain; x=\u00e9"


@pytest.mark.case("F2")
async def test_times_that_utc_does_not_have_are_the_first_or_the_last(line: Line) -> None:
    line.proxy.rule = of_key(with_header("last-modified", b"Fri, 31 Dec 9999 23:59:59 -2359"))
    assert (await line.storage.head("f/a")).modified == datetime.max.replace(microsecond=0, tzinfo=UTC)
    first = Reply(200, page(LINE.replace(b"2020-01-01T00:00:00.000Z", b"0001-01-01T00:00:00+23:59")))
    line.proxy.rule = lambda exchange: first if "list-type" in exchange.target else None
    assert [entry.modified for entry in await listed(line)] == [datetime.min.replace(tzinfo=UTC)]


@pytest.mark.case("F3")
async def test_an_etag_that_comes_weak_is_the_stores(line: Line) -> None:
    """As a proxy makes it that compresses: the store knows the object by the same ETag without the mark."""
    strong = (await line.beside.head("f/a")).etag
    line.proxy.rule = of_key(with_header("etag", b"W/" + strong.encode()), "HEAD GET")
    assert (await line.storage.head("f/a")).etag == strong
    assert await read_all(line) == DATA
    await line.storage.update("f/a", lambda data: data + b"!")
    assert await line.beside.get("f/a") == DATA + b"!"


@pytest.mark.by_turns
@pytest.mark.case("F3")
async def test_an_update_ends_where_the_store_refuses_its_own_etag(line: Line) -> None:
    line.proxy.rule = of_key(with_header("etag", b'W/"made up"'), "HEAD GET")
    with pytest.raises(NotSupportedError, match=r"refuses the ETag .* 20 times in a row") as caught:
        await line.storage.update("f/a", lambda data: data)
    assert caught.value.key == "f/a"
    line.proxy.rule = lambda exchange: None
    assert await line.storage.get("f/a") == DATA
