"""Moving objects from storage to storage: nothing is lost, nothing is done twice, whatever happens in between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import s3_servers
from support.commands import PATIENCE, process, running, stored, use_storage
from support.leftovers import library_threads, other_tasks

from micelio_storage import LocalConfig, S3Config, Storage, open_storage
from micelio_storage._hooks import Operation
from micelio_storage.driver import (
    BytesLike,
    Capabilities,
    DeleteOptions,
    InvalidArgumentError,
    InvalidKeyError,
    Key,
    ListOptions,
    NotSupportedError,
    ObjectInfo,
    OutOfSpaceError,
    Page,
    PreconditionFailedError,
    Prefix,
    ReadOptions,
    StorageError,
    UnavailableError,
    WriteOptions,
)
from micelio_storage.drivers.memory import MemoryDownload, MemoryDriver
from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.transfer import Outcome, Report, copy_below, migrate
from micelio_storage.transfer._copiers import CHUNK, SMALL, Digest, agree, difference
from micelio_storage.transfer._migrate import LARGE, LARGE_AT_ONCE, TRIES
from micelio_storage.transfer._outcomes import KEPT

SIZES = (0, 1, SMALL, SMALL + 1, 3 * CHUNK + 1)
METADATA = {"author": "Zoë", "note": "日本 =?UTF-8?Q?x?=  two spaces"}

Contents = dict[str, tuple[bytes, str, dict[str, str]]]


async def contents(storage: Storage) -> Contents:
    """All that a storage holds, as far as it has to travel."""
    found: Contents = {}
    async for entry in storage.list():
        async with storage.open_read(entry.key) as reader:
            info = reader.info
            found[entry.key] = (await reader.read(), info.content_type, dict(info.metadata))
    return found


async def fill(storage: Storage, count: int, *, prefix: str = "k/") -> None:
    for number in range(count):
        await storage.put(f"{prefix}{number:05}", b"%d" % number, metadata={"number": str(number)})


def numbers(report: Report) -> dict[str, int]:
    """The counts that are not 0."""
    names = ("copied", "skipped", "conflicts", "failed", "gone", "deleted")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def reasons(report: Report) -> dict[str | None, str | None]:
    return {outcome.key: outcome.reason for outcome in report.unsolved}


@asynccontextmanager
async def both(
    source: MemoryDriver | None = None, target: MemoryDriver | None = None, **hooks: Any
) -> AsyncIterator[tuple[Storage, Storage]]:
    async with (
        Storage(source or MemoryDriver(), hooks=hooks.get("source_hooks", ())) as one,
        Storage(target or MemoryDriver(), hooks=hooks.get("target_hooks", ())) as other,
    ):
        yield one, other


# -- what is carried over


@pytest.mark.parametrize(("source_url", "target_url"), [("memory", "disk"), ("disk", "memory"), ("disk", "disk")])
async def test_bytes_content_type_and_metadata_arrive(tmpfs: Path, source_url: str, target_url: str) -> None:
    urls = [f"file://{tmpfs}/{n}" if url == "disk" else "memory:" for n, url in enumerate((source_url, target_url))]
    async with open_storage(urls[0]) as source, open_storage(urls[1]) as target:
        for size in SIZES:
            await source.put(f"a/{size}", os.urandom(size), content_type="text/plain; charset=utf-8", metadata=METADATA)
        await source.put("ключ/鍵 [red]", b"x")
        report = await migrate(source, target)
        assert numbers(report) == {"copied": len(SIZES) + 1}
        assert report.bytes == sum(SIZES) + 1
        assert await contents(target) == await contents(source)
        assert other_tasks() == set()


async def test_a_second_run_skips_everything() -> None:
    async with both() as (source, target):
        await fill(source, 30)
        await migrate(source, target)
        before = [await target.head(entry.key) async for entry in target.list()]
        assert numbers(await migrate(source, target)) == {"skipped": 30}
        assert [await target.head(entry.key) async for entry in target.list()] == before


async def test_an_empty_storage_is_migrated_at_once() -> None:
    async with both() as (source, target):
        report = await migrate(source, target)
        assert numbers(report) == {}
        assert report.complete
        assert await contents(target) == {}


async def test_only_keys_with_the_prefix_are_copied() -> None:
    async with both() as (source, target):
        for key in ("a/1", "ab", "b"):
            await source.put(key, b"")
        assert numbers(await migrate(source, target, prefix="a")) == {"copied": 2}
        assert list(await contents(target)) == ["a/1", "ab"]


async def test_other_objects_at_the_target_are_left_alone() -> None:
    async with both() as (source, target):
        await target.put("mine", b"1")
        await source.put("yours", b"2")
        await migrate(source, target, delete_source=True, overwrite=True)
        assert sorted(await contents(target)) == ["mine", "yours"]


# -- how much at once


class CountingDriver(MemoryDriver):
    """Knows how many downloads are open, and how many were at most; each needs many turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.most = self.pages = 0

    async def read(self, key: Key, options: ReadOptions) -> Any:
        self.opened += 1
        self.most = max(self.most, self.opened)
        return _CountedDownload(self, await super().read(key, options))

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        self.pages += 1
        return await super().list_page(prefix, options)


class _CountedDownload:
    def __init__(self, driver: CountingDriver, inner: MemoryDownload) -> None:
        self.info, self.span, self.readall = inner.info, inner.span, inner.readall
        self._driver, self._inner, self._closed = driver, inner, False

    async def read(self) -> bytes:
        for _ in range(5):
            await asyncio.sleep(0)
        return await self._inner.read()

    async def aclose(self) -> None:
        self._driver.opened -= not self._closed
        self._closed = True
        await self._inner.aclose()


async def test_no_more_than_the_window_is_open_at_once_however_many_keys_there_are() -> None:
    driver = CountingDriver()
    tasks = 0

    async def on_outcome(_: Outcome) -> None:
        nonlocal tasks
        tasks = max(tasks, len(asyncio.all_tasks()))

    async with both(driver) as (source, target):
        await fill(source, 2500)
        before = len(asyncio.all_tasks())
        report = await migrate(source, target, concurrency=7, on_outcome=on_outcome)
        assert numbers(report) == {"copied": 2500}
        assert (driver.most, driver.opened, driver.pages) == (7, 0, 3)
        assert tasks <= before + 7
        assert await contents(target) == await contents(source)


async def test_of_large_objects_only_some_are_copied_at_once() -> None:
    driver = CountingDriver()
    async with both(driver) as (source, target):
        data = bytes(LARGE)
        for number in range(2 * LARGE_AT_ONCE):
            await source.put(f"large/{number}", data)
        await migrate(source, target, concurrency=20)
        assert driver.most == LARGE_AT_ONCE


@pytest.mark.parametrize("concurrency", [0, -1, 1001])
async def test_a_window_that_cannot_be_is_refused(concurrency: int) -> None:
    async with both() as (source, target):
        with pytest.raises(InvalidArgumentError):
            await migrate(source, target, concurrency=concurrency)
    assert library_threads() == []


# -- what is at the target already


DIFFERENT: list[tuple[bytes, dict[str, Any]]] = [
    (b"other", {}),
    (b"longer than it", {}),
    (b"bytes", {"content_type": "text/html"}),
    (b"bytes", {"metadata": {"a": "c"}}),
    (b"bytes", {"metadata": {}}),
]


@pytest.mark.parametrize(("data", "changed"), DIFFERENT)
async def test_an_object_that_differs_is_replaced_only_if_that_is_asked_for(
    data: bytes, changed: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"content_type": "text/plain", "metadata": {"a": "b"}}
    async with both() as (source, target):
        await source.put("k", b"bytes", **options)
        await source.put("l", b"")
        await target.put("k", data, **(options | changed))
        mine = await target.head("k")
        report = await migrate(source, target)
        assert numbers(report) == {"copied": 1, "conflicts": 1}
        assert (report.complete, list(reasons(report))) == (False, ["k"])
        assert await target.head("k") == mine
        assert numbers(await migrate(source, target, overwrite=True)) == {"copied": 1, "skipped": 1}
        assert await contents(target) == await contents(source)


class SummingDriver(CountingDriver):
    """Keeps a checksum of each object, as S3 does."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = super().publish(key, data, options)
        version = self._objects[key]
        text = base64.b64encode(hashlib.sha1(data).digest()).decode()
        self._objects[key] = replace(version, info=replace(info, checksum=f"sha1:{text}"))
        return self._objects[key].info


@pytest.mark.parametrize("kinds", [(SummingDriver, SummingDriver), (SummingDriver, CountingDriver)])
async def test_bytes_are_read_again_only_where_checksums_cannot_be_compared(
    kinds: Sequence[type[CountingDriver]],
) -> None:
    drivers = [kind() for kind in kinds]
    async with both(*drivers) as (source, target):
        await source.put("k", b"bytes")
        await migrate(source, target)
        await migrate(source, target)
        assert await contents(target) == await contents(source)
        comparable = kinds[1] is SummingDriver
        drivers[0].most = drivers[1].most = 0
        await migrate(source, target)
        assert [driver.most for driver in drivers] == ([0, 0] if comparable else [1, 1])
        await target.put("k", b"other")
        assert numbers(await migrate(source, target)) == {"conflicts": 1}


async def test_who_writes_to_the_target_meanwhile_is_not_overwritten() -> None:
    class Contested(MemoryDriver):
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            await super().put(key, b"theirs", WriteOptions())
            return await super().put(key, data, options)

    async with both(target=Contested()) as (source, target):
        await source.put("new", b"ours")
        report = await migrate(source, target)
        assert numbers(report) == {"failed": 1}
        assert "changed in the meantime" in str(reasons(report)["new"])
        assert await target.get("new") == b"theirs"
        report = await migrate(source, target, overwrite=True)
        assert numbers(report) == {"failed": 1}
        assert await target.get("new") == b"theirs"


@pytest.mark.parametrize("summing", [False, True])
async def test_who_writes_over_the_copy_before_it_is_looked_at_is_noticed(summing: bool) -> None:
    kind = SummingDriver if summing else MemoryDriver

    class Contested(kind):  # type: ignore[misc, valid-type]  # both are drivers
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            info = await super().put(key, data, options)
            await super().put(key, b"them", WriteOptions())
            return info

    async with both(kind(), Contested()) as (source, target):
        await source.put("k", b"ours")
        report = await migrate(source, target, delete_source=True)
        assert numbers(report) == {"failed": 1}
        assert "changed in the meantime" in str(reasons(report)["k"])
        assert await source.get("k") == b"ours"


class PlainDriver(MemoryDriver):
    """Has no conditions at all, as some stores."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(if_absent=False, if_match=False, if_match_streams=False, delete_if_match=False)

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if options.condition is not None:
            raise NotSupportedError("no conditions")
        return super().publish(key, data, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        if options.if_match is not None:
            raise NotSupportedError("no conditions")
        return await super().delete(keys, options)


async def test_storages_without_conditions_can_be_migrated_too() -> None:
    async with both(PlainDriver(), PlainDriver()) as (source, target):
        await fill(source, 3)
        await target.put("k/00001", b"other")
        report = await migrate(source, target, overwrite=True, delete_source=True)
        assert numbers(report) == {"copied": 3, "deleted": 3}
        assert await contents(source) == {}


# -- a source that does not keep still


class RestlessDriver(MemoryDriver):
    """Replaces an object after the first chunk of it was read, for the first so many times."""

    def __init__(self, times: int, *, breaks: bool = False) -> None:
        super().__init__()
        self.times = times
        self.breaks = breaks
        self.reads = 0

    async def read(self, key: Key, options: ReadOptions) -> Any:
        self.reads += 1
        return _RestlessDownload(self, key, await super().read(key, options))


class _RestlessDownload:
    def __init__(self, driver: RestlessDriver, key: Key, inner: MemoryDownload) -> None:
        self.info, self.span, self.readall, self.aclose = inner.info, inner.span, inner.readall, inner.aclose
        self._driver, self._key, self._inner, self._before = driver, key, inner, True

    async def read(self) -> bytes:
        chunk = await self._inner.read()
        if self._before and self._driver.reads <= self._driver.times:
            self._before = False
            data = b"%d" % self._driver.reads * (3 * CHUNK)
            await self._driver.put(self._key, data, WriteOptions(metadata={"version": str(self._driver.reads)}))
            if self._driver.breaks:  # as S3 does, where the rest is another request
                raise PreconditionFailedError("another object is there now")
        return chunk


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("size", [1, 3 * CHUNK])
async def test_an_object_replaced_while_it_is_copied_is_copied_again(breaks: bool, size: int) -> None:
    async with both(RestlessDriver(2, breaks=breaks)) as (source, target):
        await source.put("k", bytes(size))
        report = await migrate(source, target)
        assert numbers(report) == {"copied": 1}
        assert (await target.head("k")).metadata == {"version": "2"}
        assert await target.get("k") == await source.get("k")


@pytest.mark.parametrize("breaks", [False, True])
async def test_an_object_replaced_all_the_time_is_given_up(breaks: bool) -> None:
    driver = RestlessDriver(1000, breaks=breaks)
    async with both(driver) as (source, target):
        await source.put("k", bytes(3 * CHUNK))
        report = await migrate(source, target, delete_source=True)
        assert numbers(report) == {"failed": 1}
        assert "kept being replaced" in str(reasons(report)["k"])
        assert driver.reads == TRIES
        assert await source.exists("k")


async def test_an_object_removed_before_it_is_read_is_no_failure() -> None:
    class Vanishing(MemoryDriver):
        async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
            page = await super().list_page(prefix, options)
            await self.delete([page.entries[0].key], DeleteOptions())
            return page

    async with both(Vanishing()) as (source, target):
        await fill(source, 3)
        report = await migrate(source, target)
        assert numbers(report) == {"copied": 2, "gone": 1}
        assert report.complete


async def test_a_source_that_breaks_off_leaves_nothing_at_the_target() -> None:
    class Cut(MemoryDriver):
        async def read(self, key: Key, options: ReadOptions) -> Any:
            inner = await super().read(key, options)
            inner._data = inner._data[: len(inner._data) // 2]  # and the info says otherwise
            return inner

    async with both(Cut()) as (source, target):
        await source.put("k", bytes(4 * CHUNK))
        await source.put("small", b"12")
        report = await migrate(source, target)
        assert numbers(report) == {"failed": 2}
        assert await contents(target) == {}


# -- keys that cannot be copied


async def test_keys_that_cannot_be_stored_do_not_stop_the_others() -> None:
    async with both(target=MemoryDriver(nested_keys=False)) as (source, target):
        for key in ("a", "a/b", "c", "d/e", "z"):
            await source.put(key, b"x")
        report = await migrate(source, target, delete_source=True, concurrency=1)
        assert numbers(report) == {"copied": 4, "failed": 1, "deleted": 4}
        assert list(reasons(report)) == ["a/b"]
        assert list(await contents(source)) == ["a/b"]


async def test_key_conflicts_and_a_full_disk_are_reported_for_their_keys(tmpfs: Path) -> None:
    class Full(MemoryDriver):
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            if key == "b":
                raise OutOfSpaceError("no space is left")
            return await super().put(key, data, options)

    async with both(target=Full()) as (source, target), open_storage(f"file://{tmpfs}/disk") as disk:
        for key in ("a", "b", "c", "c/d"):
            await source.put(key, b"x")
        report = await migrate(source, target)
        assert (numbers(report), list(reasons(report))) == ({"copied": 3, "failed": 1}, ["b"])
        assert "no space is left" in str(reasons(report)["b"])
        report = await migrate(source, disk)
        assert numbers(report) == {"copied": 3, "failed": 1}
        assert next(iter(reasons(report))) in ("c", "c/d")


async def test_a_report_names_the_first_failures_and_counts_all() -> None:
    heard: list[str | None] = []

    async def on_outcome(outcome: Outcome) -> None:
        heard.append(outcome.key)

    async with both() as (source, target):
        await fill(source, 3 * KEPT)
        await fill(target, 3 * KEPT)
        async for entry in target.list():
            await target.put(entry.key, b"other")
        report = await migrate(source, target, on_outcome=on_outcome)
        assert (report.conflicts, len(report.unsolved), len(heard)) == (3 * KEPT, KEPT, 3 * KEPT)


async def test_a_listing_that_breaks_is_a_failure_beside_what_was_copied() -> None:
    class Breaking(MemoryDriver):
        async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
            if options.cursor is not None:
                raise UnavailableError("later, please")
            return await super().list_page(prefix, replace(options, limit=10))

    async with both(Breaking()) as (source, target):
        await fill(source, 15)
        report = await migrate(source, target)
        assert numbers(report) == {"copied": 10, "failed": 1}
        assert "later, please" in str(reasons(report)[None])


async def test_what_is_no_failure_of_a_key_ends_the_run_as_it_is() -> None:
    async def on_outcome(outcome: Outcome) -> None:
        raise LookupError(outcome.key)

    async with both() as (source, target):
        await fill(source, 50)
        with pytest.raises(LookupError):
            await migrate(source, target, on_outcome=on_outcome)
        with pytest.raises(InvalidKeyError):
            await migrate(source, target, prefix="/")
        assert other_tasks() == set()
    assert library_threads() == []


class FlippingDriver(MemoryDriver):
    """Stores another last byte than it was given."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        return super().publish(key, data[:-1] + b"!" if data else data, options)


class ForgettingDriver(MemoryDriver):
    """Says that it has stored the metadata, and has not."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = super().publish(key, data, replace(options, metadata=None))
        return replace(info, metadata=options.metadata or {})


@pytest.mark.parametrize("kind", [FlippingDriver, ForgettingDriver])
@pytest.mark.parametrize("size", [1, SMALL + 1])
async def test_a_copy_that_is_not_the_original_is_found_out(kind: type[MemoryDriver], size: int) -> None:
    async with both(target=kind()) as (source, target):
        await source.put("k", bytes(size), metadata={"a": "b"})
        report = await migrate(source, target, delete_source=True)
        assert numbers(report) == {"failed": 1}
        assert "differs from the source" in str(reasons(report)["k"])
        assert await source.exists("k")


async def test_unverified_copies_are_not_read_again_and_nothing_is_deleted_for_them() -> None:
    driver = CountingDriver()
    async with both(target=driver) as (source, target):
        await source.put("k", b"x")
        with pytest.raises(InvalidArgumentError):
            await migrate(source, target, verify=False, delete_source=True)
        assert numbers(await migrate(source, target, verify=False)) == {"copied": 1}
        assert driver.most == 0


# -- deleting the source


async def test_the_source_is_deleted_only_when_that_is_asked_for() -> None:
    async with both() as (source, target):
        await fill(source, 2500)
        expected = await contents(source)
        assert numbers(await migrate(source, target)) == {"copied": 2500}
        assert await contents(source) == expected
        assert numbers(await migrate(source, target, delete_source=True)) == {"skipped": 2500, "deleted": 2500}
        assert (await contents(source), await contents(target)) == ({}, expected)


@pytest.mark.parametrize("conditional", [True, False])
async def test_a_source_written_since_it_was_copied_is_not_deleted(conditional: bool) -> None:
    class Written(MemoryDriver):
        """Somebody writes just when the copy has been verified."""

        def __init__(self) -> None:
            super().__init__()
            self.capabilities = Capabilities(delete_if_match=conditional)
            self.heads = 0

        async def head(self, key: Key) -> ObjectInfo:
            self.heads += 1
            if self.heads == 2:  # the first is asked when the copy is done
                await self.put(key, b"new", WriteOptions())
            return await super().head(key)

        async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
            if conditional:
                await self.put(keys[0], b"new", WriteOptions())
            return await super().delete(keys, options)

    async with both(Written()) as (source, target):
        await source.put("k", b"old")
        report = await migrate(source, target, delete_source=True)
        assert numbers(report) == {"failed": 1}
        assert await source.get("k") == b"new"
        assert await target.get("k") == b"old"


async def test_a_storage_is_not_emptied_by_being_migrated_to_itself() -> None:
    driver = MemoryDriver()
    async with both(driver, driver) as (source, same):
        await fill(source, 3)
        report = await migrate(source, same, delete_source=True)
        assert numbers(report) == {"failed": 3}
        assert len(await contents(source)) == 3
        with pytest.raises(InvalidArgumentError):
            await migrate(source, source)


# -- nothing is changed by looking


async def test_a_dry_run_changes_nothing_and_says_what_would_be_done() -> None:
    async with both() as (source, target):
        await fill(source, 5)
        await target.put("k/00000", b"0", metadata={"number": "0"})
        await target.put("k/00001", b"other")
        before = [[await storage.head(entry.key) async for entry in storage.list()] for storage in (source, target)]
        options = {"dry_run": True, "delete_source": True}
        report = await migrate(source, target, **options)
        assert numbers(report) == {"copied": 3, "skipped": 1, "conflicts": 1, "deleted": 4}
        assert numbers(await migrate(source, target, overwrite=True, **options)) == {
            "copied": 4,
            "skipped": 1,
            "deleted": 5,
        }
        after = [[await storage.head(entry.key) async for entry in storage.list()] for storage in (source, target)]
        assert after == before


# -- ended in the middle


class CancelAtOperation:
    """A hook that cancels a task when the so-manieth operation begins."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.task: asyncio.Task[Report] | None = None

    @contextmanager
    def __call__(self, operation: Operation) -> Iterator[None]:
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.task.cancel()
        yield


async def cancelled_at(moment: int, make: Callable[[CancelAtOperation], Any]) -> bool:
    """Run what `make` makes until the moment; whether that came before its end."""
    hook = CancelAtOperation(moment)
    hook.task = asyncio.ensure_future(make(hook))
    with suppress(asyncio.CancelledError):
        await hook.task
    return hook.task.cancelled()


@pytest.mark.parametrize("delete_source", [False, True])
async def test_ended_at_any_operation_a_second_run_completes_it(delete_source: bool) -> None:
    moment, ended = 0, True
    while ended:
        moment += 1
        one, other = MemoryDriver(), MemoryDriver()
        async with both(one, other) as (source, target):
            await fill(source, 5)
            await source.put("big", bytes(2 * CHUNK), metadata=METADATA)
            expected = await contents(source)

            async def run(hook: CancelAtOperation, one: MemoryDriver = one, other: MemoryDriver = other) -> Report:
                first, second = Storage(one, hooks=[hook]), Storage(other, hooks=[hook])
                await first.open()
                await second.open()
                first._owner = second._owner = False  # the drivers are closed with their other storages
                return await migrate(first, second, concurrency=3, delete_source=delete_source)

            ended = await cancelled_at(moment, run)
            assert other_tasks() == set()
            assert other.uploads == {}
            there, left = await contents(target), await contents(source)
            assert left | there == expected  # nothing is lost, and what is there is whole
            report = await migrate(source, target, delete_source=delete_source)
            assert await contents(target) == expected
            assert report.skipped + report.copied == (len(left) if delete_source else len(expected))
            assert report.skipped == len(left.keys() & there.keys())
            assert await contents(source) == ({} if delete_source else expected)
    assert moment > 30
    assert library_threads() == []


async def test_ended_at_any_operation_on_disk_nothing_half_is_left(tmpfs: Path) -> None:
    async with open_storage("memory:") as source:
        await fill(source, 3)
        await source.put("big", os.urandom(2 * CHUNK), metadata=METADATA)
        expected = await contents(source)
        for moment in range(1, 60, 3):
            root = tmpfs / str(moment)

            async def run(hook: CancelAtOperation, root: Path = root) -> Report:
                async with open_storage(LocalConfig(path=root, durable=False), hooks=[hook]) as target:
                    return await migrate(source, target, concurrency=2)

            await cancelled_at(moment, run)
            assert stored(root) <= expected.keys()
            async with open_storage(LocalConfig(path=root, durable=False)) as target:
                assert (await contents(target)).items() <= expected.items()
                report = await migrate(source, target)
                assert report.copied + report.skipped == len(expected)
                assert await contents(target) == expected
    assert other_tasks() == set()
    assert library_threads() == []


# -- within one storage


async def test_what_is_below_a_prefix_is_copied_to_below_another_by_the_storage_itself() -> None:
    calls: Counter[str] = Counter()

    @contextmanager
    def count(operation: Operation) -> Iterator[None]:
        calls[operation.name] += 1
        yield

    async with Storage(MemoryDriver(), hooks=[count]) as storage:
        await fill(storage, 20, prefix="a/k/")
        await storage.put("ab", b"not below a/")
        await storage.put("a", b"nor this")
        report = await copy_below(storage, "a", "b/c/", concurrency=3)
        assert numbers(report) == {"copied": 20}
        assert (calls["copy"], calls["open_read"]) == (20, 0)
        assert await contents(storage.under("b/c")) == await contents(storage.under("a"))
        await storage.put("b/c/k/00000", b"other")
        assert numbers(await copy_below(storage, "a/", "b/c")) == {"skipped": 19, "conflicts": 1}
        assert numbers(await copy_below(storage, "a", "b/c", overwrite=True, dry_run=True))["copied"] == 1
        assert await storage.get("b/c/k/00000") == b"other"
        assert numbers(await copy_below(storage, "a", "b/c", overwrite=True)) == {"skipped": 19, "copied": 1}
        assert await contents(storage.under("b/c")) == await contents(storage.under("a"))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b", "a/"), ("a/", "a")])
async def test_a_prefix_is_not_copied_into_itself(names: tuple[str, str]) -> None:
    async with open_storage("memory:") as storage:
        with pytest.raises(InvalidArgumentError):
            await copy_below(storage, *names)


@pytest.mark.parametrize("names", [("", "a"), ("a", ""), ("/a", "b"), ("a", "../b")])
async def test_prefixes_that_no_key_has_are_refused(names: tuple[str, str]) -> None:
    async with open_storage("memory:") as storage:
        with pytest.raises(InvalidKeyError):
            await copy_below(storage, *names)


async def test_a_source_that_changes_while_the_storage_copies_is_copied_again() -> None:
    class Restless(MemoryDriver):
        times = 2

        async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
            info = await super().copy(source, target, options)
            if self.times:
                self.times -= 1
                await self.put(source, b"new" * self.times, WriteOptions())
            return info

    async with Storage(Restless()) as storage:
        await storage.put("a/k", b"old")
        assert numbers(await copy_below(storage, "a", "b")) == {"copied": 1}
        assert await storage.get("b/k") == await storage.get("a/k") == b""


async def test_who_writes_over_a_copy_inside_the_storage_is_noticed() -> None:
    class Contested(MemoryDriver):
        async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
            info = await super().copy(source, target, options)
            await self.put(target, b"them", WriteOptions())
            return info

    async with Storage(Contested()) as storage:
        await storage.put("a/k", b"ours")
        report = await copy_below(storage, "a", "b")
        assert numbers(report) == {"failed": 1}
        assert "changed in the meantime" in str(reasons(report)["a/k"])


# -- S3


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_servers.Server]:
    with s3_servers.strict() as server:
        yield server


def bucket(server: s3_servers.Server, prefix: str, **options: Any) -> Storage:
    """The part of the server's bucket below the prefix."""
    import aioboto3

    session = aioboto3.Session(
        aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key, region_name=server.region
    )
    config = S3Config(bucket=server.bucket, endpoint=server.endpoint, region=server.region, conditions="all")
    return Storage(S3Driver(config, session=session), **options)


async def test_from_disk_to_s3_and_back_everything_arrives(
    tmpfs: Path, s3: s3_servers.Server, request: pytest.FixtureRequest
) -> None:
    calls: Counter[str] = Counter()

    @contextmanager
    def count(operation: Operation) -> Iterator[None]:
        calls[operation.name] += 1
        yield

    prefix = f"p{abs(hash(request.node.name))}"
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_storage(f"file://{tmpfs}/one"))
        back = await stack.enter_async_context(open_storage(f"file://{tmpfs}/two"))
        root = await stack.enter_async_context(bucket(s3, prefix, hooks=[count]))
        first, second = root.under(f"{prefix}/1"), root.under(f"{prefix}/2")
        for size in (*SIZES, 9 * CHUNK):
            await source.put(f"a/{size}", os.urandom(size), content_type="text/plain", metadata=METADATA)
        expected = await contents(source)
        report = await migrate(source, first)
        assert (numbers(report), reasons(report)) == ({"copied": len(expected)}, {})
        calls.clear()
        assert numbers(await migrate(first, second)) == {"copied": len(expected)}
        assert calls["open_read"] == len(expected)  # the copies' checksums are the store's to compare
        assert numbers(await migrate(second, back, delete_source=True))["deleted"] == len(expected)
        assert await contents(back) == await contents(first) == expected
        assert await contents(second) == {}
        assert numbers(await copy_below(root, f"{prefix}/1", f"{prefix}/3")) == {"copied": len(expected)}
        assert await contents(root.under(f"{prefix}/3")) == expected


# -- what is compared


INFO = ObjectInfo(size=3, etag='"1"', modified=datetime(2020, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({}, False),
        ({"etag": '"2"', "modified": datetime(2021, 1, 1, tzinfo=UTC), "checksum": "md5:x"}, False),
        ({"size": 4}, True),
        ({"content_type": "text/plain"}, True),
        ({"metadata": {"a": "b"}}, True),
    ],
)
def test_what_makes_two_objects_differ(changed: dict[str, Any], differs: bool) -> None:
    assert (difference(INFO, replace(INFO, **changed)) is not None) == differs


@pytest.mark.parametrize(
    ("one", "other", "agreed"),
    [
        ({}, {}, None),
        ({"sha256": "x"}, {"crc64nvme": "x"}, None),
        ({"sha256": "x"}, {"sha256": "x"}, True),
        ({"sha256": "x"}, {"sha256": "y"}, False),
        ({"sha256": "x", "md5": "1"}, {"sha256": "x", "md5": "2"}, False),
    ],
)
def test_checksums_agree_only_where_they_are_of_one_kind(
    one: Mapping[str, str], other: Mapping[str, str], agreed: bool | None
) -> None:
    assert agree(one, other) is agreed


async def test_a_digest_is_that_of_all_pieces_wherever_they_are_hashed() -> None:
    pieces = [b"", b"x", os.urandom(3 * CHUNK), b"y" * 70000]
    digest = Digest()
    for piece in pieces:
        await digest.add(piece)
    expected = base64.b64encode(hashlib.sha256(b"".join(pieces)).digest()).decode()
    assert digest.sums() == {"sha256": expected}


# -- the command as a process


def test_interrupted_migrate_ends_and_goes_on_when_it_is_called_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = use_storage(tmp_path, monkeypatch)
    root.mkdir(mode=0o700)
    for number in range(2500):  # their lines are more than a pipe holds, so the command waits until somebody reads
        (root / f"{number:05}").write_text(str(number))
    arguments = ("migrate", f"file://{root}", f"file://{tmp_path}/other", "--json")
    with running(*arguments, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["result"] == "copied"
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        assert child.stderr.read() == b"micelio-storage: interrupted\n"
    there = stored(tmp_path / "other")
    assert 0 < len(there) < 2500
    done = process(*arguments)
    *lines, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(lines)) == (0, b"", 2500)
    assert (summary["skipped"], summary["copied"]) == (len(there), 2500 - len(there))
    assert all((tmp_path / "other" / name).read_text() == str(int(name)) for name in stored(root))


def test_a_reader_of_the_lines_that_leaves_ends_migrate_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = use_storage(tmp_path, monkeypatch)
    root.mkdir(mode=0o700)
    for number in range(2500):
        (root / f"{number:05}").touch()
    with running("migrate", f"file://{root}", f"file://{tmp_path}/other", "--json", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(PATIENCE) == 1
        assert child.stderr is not None
        assert child.stderr.read() == b""
