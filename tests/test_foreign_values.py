"""What files, attributes, documents, cursors and URLs may say: each parser takes it, escapes it, or says of which kind
the error is; whatever the text."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from support.commands import process, use_storage
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import (
    ConfigError,
    IntegrityError,
    InvalidArgumentError,
    LocalConfig,
    NotSupportedError,
    ObjectInfo,
    Session,
    Storage,
    StorageError,
    UnavailableError,
    config_from_url,
    make_driver,
    open_storage,
)
from micelio_storage.driver import Key, PreconditionFailedError, WriteOptions, parse_cursor
from micelio_storage.drivers.local._attributes import decode
from micelio_storage.drivers.local._versions import modified_at
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.drivers.s3.requests._answers import (
    count_in,
    decode_metadata,
    etag_of,
    parse_time,
    text_of,
    whole_seconds,
)
from micelio_storage.drivers.s3.requests._failures import NotS3Error
from micelio_storage.drivers.s3.requests._xml import read_answer

SECONDS = 10**9  # ns
DATES = some.datetimes(
    timezones=some.none() | some.builds(lambda m: timezone(timedelta(minutes=m)), some.integers(-1439, 1439))
)
HTTP_DATES = some.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    some.sampled_from(["Mon", "Foo", ""]),
    *(some.integers(-1, 10**20) | some.integers(0, 40) for _ in range(1)),
    some.sampled_from(["Jan", "Dec", "Foo", "1"]),
    *(some.integers(-1, 10**20) | some.integers(0, 99) for _ in range(4)),
    some.sampled_from(["GMT", "-0000", "+2359", "-2359", "+9999999999999999999999", "EST", ""]),
)
JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


# -- what a store says


@pytest.mark.case("F2")
@given(some.text(max_size=60) | HTTP_DATES)
@example("Mon, 01 Jan 2020 00:00:00 +99999999999999999999")
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
def test_any_text_is_a_time_in_utc_or_none(text: str) -> None:
    time = parse_time(text)
    assert time is None or time.utcoffset() == timedelta(0)


@pytest.mark.case("F2")
@given(DATES)
def test_any_time_has_whole_seconds_in_utc(time: datetime) -> None:
    whole = whole_seconds(time)
    assert (whole.utcoffset(), whole.microsecond) == (timedelta(0), 0)
    if time.tzinfo is not None and 2 < time.year < 9998:
        assert timedelta(0) <= time - whole < timedelta(seconds=1)


@pytest.mark.case("F1")
@given(some.binary(max_size=50))
def test_any_bytes_of_a_header_are_text(data: bytes) -> None:
    text = text_of(data.decode("utf-8", "surrogateescape"))
    assert data in (text.encode(), text.encode("latin-1", "ignore"))


@pytest.mark.case("F1")
@given(
    some.text(max_size=40)
    | some.builds("=?{}?{}?{}?=".format, some.text(max_size=20), some.sampled_from("bqQBx"), some.text(max_size=20))
)
@example("=?utf-7?q?+2AA-?=")
@example("=?unicode_escape?q?=5Cud800?=")
@example("=?idna?q?a..b?=")
@example("=?\x00?q?a?=")
def test_any_metadata_is_text(value: str) -> None:
    if value.isprintable():
        decode_metadata({"a": value})["a"].encode()


@pytest.mark.case("F3")
@given(some.text(max_size=30))
@example('W/"a"')
@example('"\udcff"')
@example('"a"b"')
def test_any_etag_is_one_that_can_be_asked_for_or_an_error(text: str) -> None:
    try:
        etag = etag_of({"ETag": text})
    except UnavailableError:
        return
    assert etag[0] == etag[-1] == '"'
    assert all(0x21 <= ord(letter) <= 0x7E and letter != '"' for letter in etag[1:-1])


@pytest.mark.case("F4")
@given(some.text(max_size=30) | some.integers().map(str))
@example("9" * 5000)
@example("1_0")
@example("\u0661")
def test_any_text_is_a_number_or_none(text: str) -> None:
    number = count_in(text)
    assert number is None or (number >= 0 and text.lstrip("0") in (str(number), ""))


@pytest.mark.case("F4")
@given(
    some.binary(max_size=200)
    | some.text(max_size=100).map(lambda text: f"<DeleteResult>{text}</DeleteResult>".encode("utf-8", "replace"))
)
def test_any_document_is_an_answer_or_an_error(data: bytes) -> None:
    with suppress(NotS3Error):
        answer = read_answer("delete_objects", data)
        assert answer is None or isinstance(answer["Errors"], list)


# -- what a disk says

FAR = [
    -(2**63),
    -(10**11) * SECONDS,
    -1,
    0,
    2**31 * SECONDS,
    2**63 - 1,
    2**63,
    16_725_225_600 * SECONDS,
    10**12 * SECONDS,
]


@pytest.mark.case("F2")
@given(some.integers(-(2**63) * SECONDS, 2**63 * SECONDS))
@example(253_402_300_800 * SECONDS)
@example(-62_135_596_801 * SECONDS)
def test_any_time_of_a_file_is_a_time(time: int) -> None:
    modified = modified_at(SimpleNamespace(st_mtime_ns=time))  # type: ignore[arg-type]  # as much as is looked at
    if 0 < time < 253_402_300_799 * SECONDS:
        assert abs(modified.timestamp() - time / SECONDS) < 1
    assert modified.tzinfo is UTC


@pytest.mark.case("F2")
@pytest.mark.parametrize("keeping", ["auto", "file"])
async def test_files_of_any_time_are_objects(place: Path, keeping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if keeping == "file":
        monkeypatch.setattr("micelio_storage.drivers.local._store.inode_keeps_attributes", lambda _: False)
    async with open_storage(LocalConfig(path=place)) as storage:
        for number, time in enumerate(FAR):
            key = f"a/{number}"
            await storage.put(key, b"1", metadata={"a": "b"})
            try:
                os.utime(place / key, ns=(time, time))
            except OverflowError:
                continue  # this system has no such time
            info = await storage.head(key)
            assert await storage.get(key) == b"1"
            assert await storage.get_with_info(key) == (b"1", info), "from what is remembered"
            assert [entry.modified async for entry in storage.list(key)] == [info.modified]
            assert (await storage.copy(key, "b")).size == 1
            assert (await storage.update(key, lambda _: b"2")).size == 1
            await storage.delete(key, if_match=(await storage.head(key)).etag)


@pytest.mark.case("F2")
def test_the_command_shows_files_of_any_time(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = use_storage(tmpfs, monkeypatch)
    assert process("put", "-", "a", data=b"1").returncode == 0
    os.utime(root / "a", ns=(10**12 * SECONDS, 10**12 * SECONDS))
    for command in (["ls", "-l"], ["ls", "--json"]):
        done = process(*command)
        assert (done.returncode, done.stderr) == (0, b"")


GOOD = {"crc64nvme": "AAAAAAAAAAA=", "size": 1}
ODD = [
    *({"size": size} for size in (math.nan, "1", 1.5, 10**400, -1)),
    *({"crc64nvme": crc} for crc in (1, "x y", "\ud800")),
    *({"t": stamp} for stamp in (1, "\u00e9", "=" * 11)),
    *({"content_type": kind} for kind in (1, "a", "a/b\r\nX-Evil: 1", "a/\ud800")),
    *({"metadata": kept} for kept in ([], {"a": 1}, {"a": "\ud800"}, {"a\n": "b"}, {"\u00e9": "b"}, {"a": "x" * 5000})),
    *({"headers": kept} for kept in ([], {"cache_control": 1}, {"cache_control": "a\r\nb"})),
]
ATTRIBUTES = [
    *(b"\xff", b"{", b"[]", b"null", b"1", b'"a"', b"NaN", b"\x00", b"\xef\xbb\xbf[]"),
    *(b"[" * 10_000, b'{"a":' * 3_000, b"9" * 5000),
    *(json.dumps(GOOD | kept).encode() for kept in ODD),
]


@pytest.mark.case("F5")
@given(
    some.binary(max_size=50)
    | JSON.map(lambda value: json.dumps(value).encode())
    | some.dictionaries(
        some.sampled_from(["crc64nvme", "size", "t", "content_type", "metadata", "headers"]), JSON, max_size=6
    ).map(lambda kept: json.dumps(GOOD | kept).encode())
)
def test_any_attributes_can_be_kept_again_or_are_damaged(data: bytes) -> None:
    with suppress(IntegrityError):
        attributes = decode(data)
        if attributes.checksum is not None:
            assert decode(attributes.encode()) == attributes
        attributes.encode()


@pytest.mark.by_turns
@pytest.mark.case("F5")
@pytest.mark.parametrize("where", ["xattr", "file"])
async def test_what_is_wrong_in_attributes_is_an_integrity_error_and_can_be_replaced(
    tmpfs: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "file":
        monkeypatch.setattr("micelio_storage.drivers.local._store.inode_keeps_attributes", lambda _: False)
    for number, data in enumerate(ATTRIBUTES):
        root = tmpfs / str(number)
        async with open_storage(LocalConfig(path=root)) as storage:
            await storage.put("a", b"1")
        if where == "xattr":
            os.setxattr(root / "a", b"user.micelio", data)
        else:
            (kept,) = (root / ".micelio" / "attributes").glob("*/*")
            kept.write_bytes(data)
        async with open_storage(LocalConfig(path=root)) as storage:
            for call in (
                partial(storage.head, "a"),
                partial(storage.get, "a"),
                partial(storage.copy, "a", "b"),
                partial(storage.update, "a", lambda old: old),
            ):
                try:
                    await call()
                except IntegrityError as error:
                    str(error).encode()
                else:
                    assert b"size" in data, f"{data[:50]!r} was taken"
            assert [entry.key async for entry in storage.list("a")] == ["a"]
            await storage.put("a", b"2")
            assert await storage.get("a") == b"2"


@pytest.mark.case("F5")
@pytest.mark.parametrize("kind", ["FIFO", "directory", "link", "odd names"])
async def test_what_stands_among_attribute_files_keeps_nobody(
    tmpfs: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("micelio_storage.drivers.local._store.inode_keeps_attributes", lambda _: False)
    async with open_storage(LocalConfig(path=tmpfs)) as storage:
        await storage.put("a", b"1")
    (kept,) = (tmpfs / ".micelio" / "attributes").glob("*/*")
    if kind == "odd names":
        for name in (b"\xff", b"-", b"--", b"9" * 200, b"x-y-z", b"-1", b"0x1", b"1_0"):
            Path(os.fsdecode(os.fsencode(kept.parent) + b"/" + name)).write_bytes(b"\xff")
    else:
        kept.unlink()
    if kind == "FIFO":
        os.mkfifo(kept)
    elif kind == "directory":
        kept.mkdir()
    elif kind == "link":
        kept.symlink_to("/dev/zero")
    async with open_storage(LocalConfig(path=tmpfs)) as storage:
        with suppress(StorageError):
            assert await storage.get("a") == b"1"
        with suppress(StorageError):
            await storage.put("a", b"2")
            assert await storage.get("a") == b"2"


# -- what a session keeps

DOCUMENTS = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a number beyond all": b'{"a": 1e999}',
    "many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "bad UTF-8": b'{"a": "\xff"}',
    "nothing": b"",
    "nulls": b"\x00" * 10,
    "a list": b"[]",
    "a text": b'"a"',
    "a number": b"1",
    "null": b"null",
    "UTF-16": '{"a"'.encode("utf-16"),
    "twice": b'{"a": 1, "a": 2}',
    "too much": b'{"a": "' + b"x" * (1 << 20) + b'"}',
}


@pytest.fixture(params=["memory", "local", "s3"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    if request.param == "s3":
        server: Server = request.getfixturevalue("small_parts_server")
        driver: Any = driver_for(server, conditions="all")
    else:
        driver = make_driver(config_from_url("memory:" if request.param == "memory" else f"file://{tmpfs}"))
    async with Storage(driver) as opened:
        below = opened.under("foreign")
        await below.delete_prefix("", everything=True)
        yield below
        await below.delete_prefix("", everything=True)


@pytest.mark.case("F6", "Z8")
async def test_a_document_that_is_none_is_an_integrity_error(storage: Storage) -> None:
    session = Session(storage, "s")
    for name, data in DOCUMENTS.items():
        await storage.put("sessions/s/metadata.json", data)
        for call in (session.metadata(), session.update_metadata(lambda document: document)):
            with pytest.raises(IntegrityError, match=r"metadata\.json"):
                await call
        assert await storage.get("sessions/s/metadata.json") == data, name


@pytest.mark.case("F6")
async def test_what_json_can_say_can_be_read_and_written_again(storage: Storage) -> None:
    session = Session(storage, "s")
    for data in (
        b'{"a": "\\ud800", "\\udfff": 1}',
        b'{"a": 1e308}',
        b'{"a": ' + b"9" * 4000 + b"}",
        b'\xef\xbb\xbf{"a": 1}',
    ):
        await storage.put("sessions/s/metadata.json", data)
        document = await session.metadata()
        assert await session.update_metadata(lambda _: None) == document == await session.metadata()


@pytest.mark.case("F6")
async def test_a_document_that_is_nested_too_deeply_changes_nothing(storage: Storage) -> None:
    session = Session(storage, "s")
    deep: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit()):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested so deeply"):
        await session.update_metadata(lambda _: deep)
    assert not await session.exists()


# -- what callers hand on


@pytest.mark.case("F7")
@given(some.text(max_size=40))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    with suppress(InvalidArgumentError):
        parse_cursor(text).encode()


@pytest.mark.case("F7")
async def test_any_text_is_a_cursor_of_a_storage_or_refused(storage: Storage) -> None:
    for text in ("\x00", "\ud800", "\u00e9", "/" * 5, "A" * 3, "_w", "gICA", "A" * 4000):
        for below in (storage, storage.under("a")):
            with pytest.raises(InvalidArgumentError, match="not a cursor"):
                await below.list_page(cursor=text)


@pytest.mark.case("F7")
@given(
    some.sampled_from(["file://", "file:///", "s3://", "s3://b/", "s3://b?", "memory:", "file:///a?", ""]),
    some.text(max_size=30) | some.text(alphabet="%0aF/?&=[]:#@~\u00e9\x00 ", max_size=30),
)
@example("file:///", "a%00b")
@example("s3://", "[")
@example("s3://b?", "part_size=" + "9" * 5000)
@example("s3://b?", "deadline=" + "9" * 500)
def test_any_url_is_a_configuration_or_a_config_error(scheme: str, rest: str) -> None:
    with suppress(ConfigError):
        config = config_from_url(scheme + rest)
        if isinstance(config, LocalConfig):
            repr(make_driver(config, {"HOME": "/nowhere"}))


@pytest.mark.case("F7")
def test_a_path_in_a_url_may_have_any_bytes(tmp_path: Path) -> None:
    config = config_from_url("file:///srv/%ff%e9")
    assert isinstance(config, LocalConfig)
    assert os.fsencode(config.path) == b"/srv/\xff\xe9"


@pytest.mark.case("F7")
@pytest.mark.parametrize("deadline", [10**400, -(10**400), math.inf, math.nan, 0], ids=lambda number: str(number)[:5])
async def test_a_deadline_of_any_number_is_taken_or_refused(deadline: float) -> None:
    async with open_storage("memory:") as storage:
        with pytest.raises(InvalidArgumentError, match="deadline must be a finite number"):
            await storage.put("a", b"1", deadline=deadline)


# -- a compare-and-swap that nobody can win


class Refusing(MemoryDriver):
    """Refuses whatever has a condition, as a store does of which a proxy changes the ETags."""

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        if options.condition is not None:
            raise PreconditionFailedError("the object's ETag does not match if_match")
        return await super().put(key, data, options)


@asynccontextmanager
async def refusing() -> AsyncIterator[Storage]:
    async with Storage(Refusing()) as storage:
        yield storage


@pytest.mark.case("F3")
async def test_an_update_that_is_refused_though_nobody_comes_between_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with refusing() as storage:
        with pytest.raises(NotSupportedError, match="refuses to make an object where it shows none 20 times"):
            await storage.update("a", lambda _: b"1")
        await storage.put("a", b"1")
        with pytest.raises(
            NotSupportedError, match=r'refuses the ETag "\S+", which is the object\'s, 20 times'
        ) as caught:
            await storage.update("a", lambda _: b"2")
        assert isinstance(caught.value.__cause__, PreconditionFailedError)


@pytest.mark.case("F3")
async def test_an_update_goes_on_for_as_long_as_others_come_between() -> None:
    async with open_storage("memory:") as storage:
        await storage.put("a", b"")
        tries = 0

        async def change(data: bytes | None) -> bytes:
            nonlocal tries
            tries += 1
            if tries <= 50:
                await storage.put("a", b"%d" % tries)
            return (data or b"") + b"!"

        await storage.update("a", change)
        assert await storage.get("a") == b"50!"
