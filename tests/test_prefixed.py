"""What is below a prefix: keys as long as they may be, names that are no keys there, cursors that tell nothing."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from micelio_storage import InvalidArgumentError, InvalidKeyError, Removed, Session, Storage, Usage, list_sessions
from micelio_storage.driver import (
    DeleteOptions,
    Driver,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    StorageError,
    WriteOptions,
)
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.wrappers.prefixed import PrefixedDriver


@pytest.fixture(params=["memory", "local"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    driver: Driver = MemoryDriver() if request.param == "memory" else LocalDriver(tmpfs / "root")
    async with Storage(driver) as storage:
        yield storage


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.key async for entry in storage.list(prefix)]


# -- what is no key below the prefix


@pytest.mark.case("N4")
async def test_what_is_no_key_below_a_prefix_is_skipped_and_counted(storage: Storage) -> None:
    below = storage.under("tenants/a")
    for key in ("tenants/a/.micelio/probe-1", "tenants/a/.micelio/x", "tenants/a/b", "tenants/a/c/d"):
        await storage.put(key, b"1")
    page = await below.list_page()
    assert ([entry.key for entry in page.entries], page.skipped, page.cursor) == (["b", "c/d"], 2, None)
    assert page.foreign == [".micelio/probe-1"]
    assert (await below.list_page(foreign=True)).foreign == [".micelio/probe-1", ".micelio/x"]
    folded = await below.list_page(delimiter="/")
    assert ([entry.key for entry in folded.entries], folded.prefixes, folded.skipped) == (["b"], ["c/"], 1)
    assert folded.foreign == [".micelio/"]
    assert (await storage.list_page()).skipped == 0
    assert await keys_of(below) == ["b", "c/d"]


@pytest.mark.case("N4")
async def test_a_page_of_which_nothing_is_a_key_gives_way_to_the_next(storage: Storage) -> None:
    for number in range(5):
        await storage.put(f"a/.micelio/{number}", b"1")
    await storage.put("a/b", b"1")
    page = await storage.under("a").list_page(limit=2)
    assert ([entry.key for entry in page.entries], page.skipped, page.cursor) == (["b"], 5, None)


@pytest.mark.case("N4")
async def test_usage_exists_and_delete_of_a_session_are_not_harmed_by_what_is_no_key_there(storage: Storage) -> None:
    session = Session(storage, "s")
    await session.files.put("a", b"12")
    for key in ("sessions/s/.micelio/x", "sessions/s/files/.micelio/y"):
        await storage.put(key, b"123")
    assert await session.usage() == Usage(files=1, bytes=2, skipped=1)
    assert await session.exists()
    removed = await session.delete()
    assert (removed, removed.skipped) == (2, 1)  # files/.micelio/y is a key for the session, if not for its files
    assert not await session.exists()
    assert await keys_of(storage) == ["sessions/s/.micelio/x"]


@pytest.mark.case("N4")
async def test_it_is_logged_once_for_each_prefix(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    await storage.put("a/.micelio/x", b"1")
    with caplog.at_level(logging.WARNING, "micelio_storage"):
        for _ in range(3):
            await keys_of(storage.under("a"))
            await keys_of(storage)
        await keys_of(storage.under("a"), ".")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "'a/' leave out" in told[0]
    assert "such as .micelio/x" in told[0]
    assert "ls --foreign" in told[0]


# -- how long keys may be


async def test_a_key_too_long_below_the_prefix_is_refused_before_any_call(tmpfs: Path) -> None:
    class Untouched(MemoryDriver):
        async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
            raise AssertionError("the driver was asked")

        async def head(self, key: Key) -> ObjectInfo:
            raise AssertionError("the driver was asked")

        def _find(self, key: Key) -> Any:
            raise AssertionError("the driver was asked")

        def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
            raise AssertionError("the driver was asked")

        async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
            raise AssertionError("the driver was asked")

    prefix = "p" * 99
    async with Storage(Untouched()) as storage:
        below = storage.under(prefix)
        assert below.capabilities.max_key_bytes == 924
        for size in (925, 1024):
            key = ("k" * 200 + "/") * 4 + "k" * (size - 804)
            for call in (below.put(key, b""), below.get(key), below.delete(key), below.copy("a", key)):
                with pytest.raises(
                    InvalidKeyError, match=r"must not exceed 924 bytes of UTF-8 here.*takes 100 of 1024"
                ):
                    await call
            with pytest.raises(InvalidKeyError, match="exceed 924"):
                await below.list_page(key)
            with pytest.raises(InvalidKeyError, match="exceed 924"):
                await below.list_page(start_after=key)
            with pytest.raises(InvalidKeyError, match="exceed 924"):
                await below.delete_prefix(key)
            with pytest.raises(InvalidKeyError, match="exceed 924"):
                below.under(key)


async def test_the_longest_key_is_shorter_by_every_prefix(storage: Storage) -> None:
    below = storage.under("a" * 100).under("\u20ac" * 20)
    assert below.capabilities.max_key_bytes == 1024 - 101 - 61
    key = "/".join(["k" * 215] * 4)[:-1]
    assert len(key) == 862
    await below.put(key, b"1")
    assert await keys_of(below) == [key]
    assert await storage.get(f"{'a' * 100}/{chr(0x20AC) * 20}/{key}") == b"1"


async def test_capabilities_below_a_prefix_follow_those_of_the_driver() -> None:
    driver = MemoryDriver()
    below = PrefixedDriver(driver, Prefix.parse("abc/"))
    assert below.capabilities is below.capabilities
    assert below.capabilities.nested_keys
    driver.capabilities = MemoryDriver(nested_keys=False).capabilities
    assert not below.capabilities.nested_keys
    assert below.capabilities.max_key_bytes == 1020


# -- cursors and starts


def layers_of(cursor: str) -> list[bytes]:
    """The cursor, and what its bytes are in base64, as often as they are base64."""
    found = [cursor.encode()]
    while True:
        try:
            found.append(base64.urlsafe_b64decode(found[-1] + b"=" * (-len(found[-1]) % 4)))
        except ValueError:
            return found


@pytest.mark.case("N5")
async def test_a_cursor_does_not_show_the_prefix_that_is_above(storage: Storage) -> None:
    below = storage.under("tenants/secret")
    for name in ("b/c", "d", "e"):
        await below.put(name, b"1")
    for prefix, delimiter in (("", None), ("", "/"), ("b/", None)):
        page = await below.list_page(prefix, limit=1, delimiter=delimiter)  # type: ignore[arg-type]  # it is "/"
        if page.cursor is not None:
            assert not any(b"secret" in layer or b"tenants" in layer for layer in layers_of(page.cursor))
            following = await below.list_page(prefix, cursor=page.cursor, delimiter=delimiter)  # type: ignore[arg-type]
            assert [entry.key for entry in following.entries] == ["d", "e"]
        else:
            assert prefix == "b/"


@pytest.mark.case("N5")
async def test_a_cursor_of_another_prefix_is_refused(storage: Storage) -> None:
    for key in ("a/1", "a/2", "a/b/1", "a/b/2", "b/1", "b/2", "z"):
        await storage.put(key, b"1")
    above = (await storage.list_page(limit=1)).cursor
    cursor = (await storage.under("a").list_page(limit=1)).cursor
    assert above is not None
    assert cursor is not None
    for wrong, place in (
        (cursor, storage.under("b")),
        (cursor, storage),
        (cursor, storage.under("a/b")),
        (above, storage.under("a")),
        (cursor[:-2] + ("AA" if not cursor.endswith("AA") else "BB"), storage.under("a")),
        ("", storage.under("a")),
        ("\u20ac", storage.under("a")),
    ):
        with pytest.raises(InvalidArgumentError, match="not a cursor of this listing"):
            await place.list_page(cursor=wrong)
    with pytest.raises(InvalidArgumentError, match="not a cursor of this listing"):
        await storage.list_page("b/", cursor=above)


async def test_an_empty_start_is_the_beginning_with_a_delimiter_too(storage: Storage) -> None:
    for key in ("a/b/1", "a/b/2", "a/c", "b/d"):
        await storage.put(key, b"1")
    for place, prefix, start, prefixes, keys in (
        (storage, "", "", ["a/", "b/"], []),
        (storage, "a/", "", ["a/b/"], ["a/c"]),
        (storage, "a/", "a/", ["a/b/"], ["a/c"]),
        (storage, "a/", "a/b/", [], ["a/c"]),
        (storage, "a/", "a/b/1", ["a/b/"], ["a/c"]),
        (storage, "a/b/", "a/b/", [], ["a/b/1", "a/b/2"]),
        (storage, "", "a/b/", ["a/", "b/"], []),
        (storage.under("a"), "", "", ["b/"], ["c"]),
        (storage.under("a"), "b/", "b/", [], ["b/1", "b/2"]),
    ):
        page = await place.list_page(prefix, start_after=start, delimiter="/")
        assert (list(page.prefixes), [entry.key for entry in page.entries]) == (prefixes, keys), (prefix, start)


# -- sessions


@pytest.mark.case("N4")
async def test_only_ids_of_sessions_are_listed(storage: Storage) -> None:
    for name in ("one", "-no", ".no", "n o", "n\u00f6", "x" * 129, "two"):
        await storage.put(f"sessions/{name}/files/a", b"1")
    await storage.put("sessions/three", b"1")
    assert [name async for name in list_sessions(storage)] == ["one", "two"]


async def test_a_deleted_session_is_forgotten_at_once(storage: Storage) -> None:
    for name in ("one", "two"):
        await Session(storage, name).files.put("a/b/c", b"1")
    assert await Session(storage, "one").delete() == 1
    assert [name async for name in list_sessions(storage)] == ["two"]


def test_what_was_removed_is_a_number() -> None:
    removed = Removed(3, skipped=2)
    assert (removed, removed + 1, removed.skipped) == (3, 4, 2)


async def test_a_driver_below_a_prefix_refuses_what_is_too_long_itself() -> None:
    driver = PrefixedDriver(MemoryDriver(), Prefix.parse("p/"))
    with pytest.raises(InvalidKeyError):
        await driver.put(Key.parse("/".join(["k" * 204] * 5)), b"", WriteOptions())
